"""The OSCQuery tree: its nodes and their values."""

from http import HTTPStatus
from pathlib import Path

from perceivers_live.controls.registry import Controls
from perceivers_live.osc.query_tree import answer, node_at, tree
from perceivers_live.session.saved_states import StateStore
from tests.perceivers_live.sessions import SessionHarness
from tests.perceivers_live.toys import SMALL


def test_a_query_is_a_readable_node_with_its_answer() -> None:
    root = tree(Controls().snapshot(), {}, {"state": lambda: ["playing"], "stats": lambda: ["late", 2.5], "states": lambda: [0]})
    expected = {"state": ("s", ["playing"]), "stats": ("sf", ["late", 2.5]), "states": ("i", [0])}
    for name, (tags, value) in expected.items():
        node = node_at(root, f"/perceivers/{name}")
        assert node is not None
        assert (node["TYPE"], node["VALUE"], node["ACCESS"]) == (tags, value, 1)
        assert answer(node, ["VALUE"]) == (HTTPStatus.OK, {"VALUE": value})


def test_description_of_a_limit_mentions_its_partner() -> None:
    node = node_at(tree(Controls().snapshot(), {}), "/perceivers/register_low")
    assert node is not None
    assert node["DESCRIPTION"] == "Lowest note the machine plays. Setting it beyond register_high sets both."


def test_every_command_and_query_of_a_session_has_a_description(tmp_path: Path) -> None:
    states = StateStore(tmp_path, SMALL, "any")
    session = SessionHarness(states=states).session
    commands, queries = session.commands(), session.queries()
    assert {"takeover", "save", "learn"} < set(commands)
    root = tree(Controls().snapshot(), commands, queries)
    for name in [*commands, *queries]:
        node = node_at(root, f"/perceivers/{name}")
        assert node is not None
        assert str(node.get("DESCRIPTION", "")).endswith("."), name
