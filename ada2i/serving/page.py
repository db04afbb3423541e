"""The description of the API: OpenAPI with an example for the served version, and a page that shows and sends it.

The page is made here: it loads nothing from another server, since a user types the token into it.
"""

import json
from importlib import metadata
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, PackageLoader

from ada2i.serving.replica import Description

_TURNS = 2


def openapi(api: FastAPI, described: Description) -> dict[str, Any]:
    """Return the OpenAPI document; its examples work as they are for the described version."""
    document = get_openapi(
        title="ada2i", version=metadata.version("ada2i"), summary=f"Answers of {described.version}", routes=api.routes
    )
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    turns = example(described)
    for path, value in (("/predict", {"turns": turns}), ("/sessions/{session}/turns", turns[0])):
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"] = value
    return document


def example(described: Description) -> list[dict[str, Any]]:
    """Return turns that a version takes: texts if it reads texts only, else SYNTHETIC random vectors."""
    if described.text and not described.clips:
        texts = ("I got the job!", "That is wonderful, congratulations.")
        return [{"speaker": speaker, "text": text} for speaker, text in zip("AB", texts, strict=True)]
    random = np.random.default_rng(0)
    return [
        {
            "speaker": "AB"[place],
            "features": {m: random.standard_normal(w).round(3).tolist() for m, w in described.widths.items()},
        }
        for place in range(_TURNS)
    ]


def html(document: dict[str, Any]) -> str:
    """Return the page for an OpenAPI document."""
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "description": operation.get("description", ""),
            "example": _example(operation),
            "body": "requestBody" in operation,
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    templates = Environment(loader=PackageLoader("ada2i.serving", "."), autoescape=True)
    return templates.get_template("page.html.j2").render(document=document, operations=operations)


def _example(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return json.dumps(content["example"]) if "example" in content else ""
