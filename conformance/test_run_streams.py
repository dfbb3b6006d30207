"""Following runs live, from any point: routes of this server's own, with the frames of `sse.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support import sse
from support.common import UNKNOWN_RUN, agents_of, new_agent
from support.errors import fields
from support.models import HANG, LOOKUP, NAMES, SCRIPTED, ModelServer, call, say, turn
from support.rest import Rest, error_of
from support.shapes import RUN, TERMINAL, check


@pytest.fixture
def base(shared_sandbox: str) -> str:
    return agents_of(shared_sandbox)


def make(rest: Rest, base: str, **agent: Any) -> str:
    """The path of a new agent."""
    return f"{base}/{rest.call('POST', base, new_agent(**agent))['slug']}"


def events(rest: Rest, base: str, run_id: str, after: str | None = None) -> list[sse.Frame]:
    """The frames of a run that is over, or will be."""
    with rest.follow(f"{base}/runs/{run_id}/events", after) as answer:
        assert answer.status_code == 200, answer.read()
        return sse.read(answer.iter_raw())


def live(answer: Any) -> Iterator[sse.Frame]:
    """Frames as they come."""
    reader = sse.Reader()
    for piece in answer.iter_raw():
        yield from reader.feed(piece)
    reader.end()


def text_of(frames: list[sse.Frame]) -> str:
    return "".join(frame.data["text"] for frame in frames if frame.event == "agent_text_delta")


# --- the frames of a run ----------------------------------------------------------------------------------------------


@pytest.mark.wire("runs.events")
def test_a_finished_run_is_told_again(rest: Rest, base: str) -> None:
    run = rest.call("POST", f"{make(rest, base)}/test", {"event_payload": {"a": 1}})
    told = sse.check_turn(events(rest, base, run["run_id"]))
    assert told.run_id == run["run_id"]
    assert told.text == run["output_text"]
    assert told.end.event == "agent_finish"
    assert all(frame.id for frame in told.frames), "each frame says where to go on"
    with rest.follow(f"{base}/runs/{run['run_id']}/events") as answer:
        answer.read()
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert answer.headers["x-accel-buffering"] == "no"


@pytest.mark.wire("runs.events")
def test_a_follower_sees_what_the_caller_saw(rest: Rest, base: str, models: ModelServer) -> None:
    models.play(turn(*say("Grüße ", "🚀 "), call(LOOKUP, order="a"), call(NAMES)), turn(*say("That ", "is all.")))
    body = {
        "provider": SCRIPTED["backend"],
        "model": SCRIPTED["model"],
        "system_prompt": "You help.",
        "messages": [{"role": "user", "content": "Hello"}],
        "end_user_id": "user",
    }
    with rest.stream(f"{base}/run", body) as answer:
        seen = sse.check_turn(sse.read(answer.iter_raw()))
    assert sse.check_turn(events(rest, base, seen.run_id)).told() == seen.told()
    for cut, frame in enumerate(seen.frames[:-1], 1):
        later = events(rest, base, seen.run_id, frame.id)
        rest_of_it = sse.Turn(seen.frames[cut:]).told()
        assert sse.Turn(later).told() == rest_of_it, f"cut after {frame.id}"


@pytest.mark.wire("runs.events")
def test_every_cut_is_mended(rest: Rest, base: str, models: ModelServer) -> None:
    """From each id on the rest comes, nothing twice and nothing missing; the header goes before the query."""
    models.play(turn(*say("Grüße. "), call(LOOKUP, order="a")), turn(*say("Done.")))
    run = rest.call("POST", f"{make(rest, base, model_settings=SCRIPTED)}/test", {})
    whole = events(rest, base, run["run_id"])
    ids = [frame.id for frame in whole]
    assert len(set(ids)) == len(ids)
    for cut, last_id in enumerate(ids[:-1], 1):
        assert events(rest, base, run["run_id"], last_id) == whole[cut:]
        with rest.follow(f"{base}/runs/{run['run_id']}/events?after={last_id}") as answer:
            assert sse.read(answer.iter_raw()) == whole[cut:]
        with rest.follow(f"{base}/runs/{run['run_id']}/events?after={ids[0]}", last_id) as answer:
            assert sse.read(answer.iter_raw()) == whole[cut:]
    # Whoever has the end is told not to come again.
    with rest.follow(f"{base}/runs/{run['run_id']}/events", ids[-1]) as answer:
        assert (answer.status_code, answer.read()) == (204, b"")


@pytest.mark.wire("runs.events")
def test_a_run_is_followed_while_it_goes_on(rest: Rest, base: str, models: ModelServer) -> None:
    """Two followers, of whom one leaves: that changes nothing."""
    models.play(turn(*say("Hello "), call(LOOKUP, order="a")), turn(*say("again.")))
    models.hold()
    path = make(rest, base, model_settings=SCRIPTED)
    run_id = rest.call("POST", f"{path}/invoke-async", {"message": "Hello"})["run_id"]
    with rest.follow(f"{base}/runs/{run_id}/events") as answer:
        assert next(live(answer)).event == "run_started"
    with rest.follow(f"{base}/runs/{run_id}/events") as answer:
        following = live(answer)
        frames = [next(following)]
        assert rest.call("GET", f"{base}/runs/{run_id}")["status"] in ("pending", "running")
        models.release()
        frames += following
    followed = sse.check_turn(frames)
    assert (followed.text, followed.end.event) == ("Hello again.", "agent_finish")
    assert [call.data["name"] for call in followed.calls.values()] == [LOOKUP]
    assert rest.call("GET", f"{base}/runs/{run_id}")["status"] == "succeeded"


@pytest.mark.wire("runs.events")
def test_the_row_is_final_when_a_follower_sees_the_end(rest: Rest, base: str, models: ModelServer) -> None:
    models.play(turn(*say("Hello")))
    models.hold()
    path = make(rest, base, model_settings=SCRIPTED)
    run_id = rest.call("POST", f"{path}/invoke-async", {"message": "Hello"})["run_id"]
    with rest.follow(f"{base}/runs/{run_id}/events") as answer:
        for frame in live(answer):
            if frame.event == "run_started":
                models.release()
            if frame.event in sse.TERMINAL:
                assert rest.call("GET", f"{base}/runs/{run_id}")["status"] == "succeeded"


@pytest.mark.wire("runs.events")
def test_a_run_that_is_cancelled_says_so_to_its_followers(rest: Rest, base: str, models: ModelServer) -> None:
    models.play(turn(*say("Hel"), HANG))
    path = make(rest, base, model_settings=SCRIPTED)
    run_id = rest.call("POST", f"{path}/invoke-async", {"message": "Hello"})["run_id"]
    with rest.follow(f"{base}/runs/{run_id}/events") as answer:
        following = live(answer)
        frames = [next(following)]
        run = rest.call("POST", f"{base}/runs/{run_id}/cancel")
        frames += following
    end = sse.check_turn(frames).end
    assert (end.event, end.data["type"]) == ("agent_error", "Cancelled")
    assert end.data["message"] == run["error_message"]
    assert text_of(events(rest, base, run_id)) == run["output_text"], "what was said of it is told"


@pytest.mark.wire("runs.events", error=404)
def test_only_runs_that_one_may_read_are_followed(
    rest: Rest, guest_rest: Rest, anonymous: Rest, base: str, sandbox: str
) -> None:
    run_id = rest.call("POST", f"{make(rest, base)}/test", {})["run_id"]
    guest_rest.refused("GET", f"{base}/runs/{run_id}/events", 404)
    rest.refused("GET", f"{agents_of(sandbox)}/runs/{run_id}/events", 404)
    rest.refused("GET", f"{base}/runs/{UNKNOWN_RUN}/events", 404)
    rest.refused("GET", f"{base}/runs/nonsense/events", 404)
    anonymous.refused("GET", f"{base}/runs/{run_id}/events", 401)


@pytest.mark.wire("runs.events", error=422)
@pytest.mark.parametrize("last_id", ["abc", "-1", "1.2.3"])
def test_a_frame_has_an_id_of_its_kind(rest: Rest, base: str, last_id: str) -> None:
    run_id = rest.call("POST", f"{make(rest, base)}/test", {})["run_id"]
    with rest.follow(f"{base}/runs/{run_id}/events", last_id) as answer:
        answer.read()
        assert answer.status_code == 422
        assert fields(error_of(answer)) == {"header.Last-Event-ID"}


# --- the runs of an agent ---------------------------------------------------------------------------------------------


def rows(frames: Iterator[sse.Frame]) -> Iterator[dict[str, Any]]:
    """The rows of a stream of runs."""
    for frame in frames:
        assert (frame.event, bool(frame.id)) == ("run", True)
        check(frame.data, RUN)
        yield frame.data


@pytest.mark.wire("runs.stream")
def test_new_and_changed_runs_are_seen(rest: Rest, base: str, models: ModelServer) -> None:
    models.play(turn(*say("Hello")))
    models.hold()
    path = make(rest, base, model_settings=SCRIPTED)
    with rest.follow(f"{path}/runs/stream") as answer:
        seen = rows(live(answer))
        run_id = rest.call("POST", f"{path}/invoke-async", {"message": "Hello"})["run_id"]
        row = next(seen)
        assert row["run_id"] == run_id
        assert row["status"] in ("pending", "running")
        models.release()
        statuses = [row["status"]]
        while statuses[-1] not in TERMINAL:
            row = next(seen)
            assert row["run_id"] == run_id
            statuses.append(row["status"])
    assert statuses[-1] == "succeeded"
    assert row["output_text"] == "Hello"


@pytest.mark.wire("runs.stream")
def test_the_newest_runs_may_come_first(rest: Rest, base: str) -> None:
    path = make(rest, base)
    runs = [rest.call("POST", f"{path}/test", {})["run_id"] for _ in range(3)]
    with rest.follow(f"{path}/runs/stream?backlog=2") as answer:
        seen = rows(live(answer))
        assert [next(seen)["run_id"] for _ in range(2)] == runs[1:]
        new = rest.call("POST", f"{path}/test", {})["run_id"]
        assert next(seen)["run_id"] == new


@pytest.mark.wire("runs.stream")
def test_what_happened_meanwhile_is_told(rest: Rest, base: str) -> None:
    """Rows that were seen before may come again, but none is missing."""
    path = make(rest, base)
    known = rest.call("POST", f"{path}/test", {})["run_id"]
    with rest.follow(f"{path}/runs/stream?backlog=1") as answer:
        last = next(live(answer))
    missed = [rest.call("POST", f"{path}/test", {})["run_id"] for _ in range(2)]
    with rest.follow(f"{path}/runs/stream", last.id) as answer:
        seen = (row["run_id"] for row in rows(live(answer)))
        found = [next(run_id for run_id in seen if run_id != known) for _ in missed]
    assert found == missed


@pytest.mark.wire("runs.stream")
def test_runs_of_other_agents_are_not_seen(rest: Rest, base: str) -> None:
    path, other = make(rest, base), make(rest, base)
    with rest.follow(f"{path}/runs/stream") as answer:
        seen = rows(live(answer))
        rest.call("POST", f"{other}/test", {})
        run_id = rest.call("POST", f"{path}/test", {})["run_id"]
        assert next(seen)["run_id"] == run_id


@pytest.mark.wire("runs.stream", error=404)
def test_only_agents_that_one_may_read_are_followed(rest: Rest, guest_rest: Rest, anonymous: Rest, base: str) -> None:
    path = make(rest, base)
    guest_rest.refused("GET", f"{path}/runs/stream", 404)
    rest.refused("GET", f"{base}/nobody/runs/stream", 404)
    anonymous.refused("GET", f"{path}/runs/stream", 401)


@pytest.mark.wire("runs.stream", error=422)
def test_a_change_has_an_id_of_its_kind(rest: Rest, base: str) -> None:
    with rest.follow(f"{make(rest, base)}/runs/stream", "nonsense") as answer:
        assert answer.status_code == 422
        body = json.loads(answer.read())
    assert fields(body) == {"header.Last-Event-ID"}
