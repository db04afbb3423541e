"""Encoders: from one utterance's text, sound or pictures to one vector."""
