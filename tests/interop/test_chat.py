"""fixtures/chat/golden.json is what the installed transformers makes of its conversations."""

import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parents[2] / "fixtures" / "chat"


def test_the_golden_conversations_are_those_of_transformers():
    spec = importlib.util.spec_from_file_location("make_chat", HERE / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    with open(HERE / "golden.json", encoding="utf-8") as file:
        assert make.golden(HERE / "tokenizer.json") == json.load(file)
