"""One rank of a process group, run as a script: prints the sum over ranks and its listening sockets."""

import json
import sys
from pathlib import Path

import psutil
import torch

from ada2i.balance.none import NoBalancer
from ada2i.checkpoint import TrainState
from ada2i.config import NoBalance
from ada2i.training import distributed
from ada2i.training.ddp import equalise_replicas
from ada2i.training.distributed import Place
from tests.unit.training.sharing import share_through

RANK, HOST, FILE = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


place = Place(rank=RANK, world=2, local_world=2, local_rank=RANK, host=HOST, share=share_through(FILE, RANK))
with distributed.process_group(place, backend="gloo"):
    total = float(distributed.sum_over_ranks(torch.ones(1)))
    listening = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    differing = distributed.differing_ranks([torch.arange(5.0), torch.full((2, 2), 0.5 + RANK * 2.0**-24)])
    model = torch.nn.Linear(1, 2)
    torch.nn.init.constant_(model.weight, 0.5 + RANK * 2.0**-24)
    torch.nn.init.zeros_(model.bias)
    state = TrainState(model, torch.optim.Adam(model.parameters()), None, NoBalancer(NoBalance()))
    replaced = equalise_replicas(state, epoch=1)
    weights = model.weight.flatten().tolist()
    distributed.barrier()
found = {"sum": total, "listening": sorted(listening), "differing": differing, "replaced": replaced, "weights": weights}
sys.stdout.write(json.dumps(found))
