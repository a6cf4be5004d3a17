#!/usr/bin/env python3
"""A client that is not ours: it knows NATS, JSON and the contract, and nothing of Outlive's code.

usage: contract.py NATS_URL

Prints a line for each thing that is as the contract says, and a traceback for what is not; then it ends with 1.
"""

import asyncio
import json
import re
import sys
import traceback
import uuid

import nats
from client import LONG, STATUSES, TIME, UUID_V7, VIEW_FIELDS, Refused, Service, pack, said, shell, unpack
from life import snapshots, stops_and_starts, updates_and_rollbacks
from nats.errors import NoRespondersError

### What the contract says


async def submissions(service):
    given = await service.call("job.submit", {"name": "first", "driver": {"noop": {}}, "input": "grüße"})
    assert set(given) >= {"id", "name", "version", "status", "duplicate"}, given
    assert UUID_V7.match(given["id"]), given["id"]
    assert (given["name"], given["version"], given["duplicate"]) == ("first", 1, False), given
    view = await service.call("job.wait", {"job": given["id"], "until": "finished", "timeout": "30s"})
    assert set(view) >= VIEW_FIELDS, VIEW_FIELDS - set(view)
    assert (view["status"], view["result"], view["kind"], view["attempt"]) == ("succeeded", "grüße", "batch", 1), view
    assert view["namespace"] == "default" and view["labels"] == {} and view["restarts"] == 0, view
    for field in ("submitted_at", "started_at", "finished_at"):
        assert TIME.match(view[field]), (field, view[field])
    said("a noop job succeeds with its input as its result, and its view has the contract's fields")

    unnamed = await service.call("job.submit", {"driver": {"noop": {}}})
    assert unnamed["name"] and re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", unnamed["name"]), unnamed
    view = await service.call("job.get", {"job": unnamed["name"]})
    assert view["id"] == unnamed["id"], "a name made from the id means that job"
    said("a job without a name gets one")

    binary = await service.call("job.submit", {"driver": {"noop": {}}, "input": {"base64": "/wD+"}})
    view = await service.call("job.wait", {"job": binary["id"], "timeout": "30s"})
    assert view["result"] == {"base64": "/wD+"}, view["result"]
    said("bytes that are not UTF-8 go in and out as base64")

    again = await service.call("job.submit", {"name": "first", "driver": {"noop": {}}, "input": "second"})
    assert again["id"] != given["id"] and not again["duplicate"], again
    view = await service.call("job.get", {"job": "first"})
    assert view["id"] == again["id"], "a name means the newest job that has it"
    view = await service.call("job.get", {"job": given["id"]})
    assert view["id"] == given["id"]
    said("a name may be used again once its job is finished, and then means the newest")


async def idempotence(service):
    headers = {"Nats-Msg-Id": str(uuid.uuid4())}
    spec = shell("sleep 60", name="once")
    first = await service.call("job.submit", spec, headers=headers)
    second = await service.call("job.submit", spec, headers=headers)
    assert not first["duplicate"] and second["duplicate"], (first, second)
    assert first["id"] == second["id"], (first, second)
    await service.refused("in_use", "once", operation="job.submit", body=spec)
    assert len([j for j in (await service.call("job.list", {"name_prefix": "once"}))["jobs"]]) == 1
    said("the same Nats-Msg-Id gives the same job, another one is told that the name is taken")

    headers = {"Nats-Msg-Id": str(uuid.uuid4())}
    jobs = {"jobs": [{"driver": {"noop": {}}, "input": str(i)} for i in range(10)]}
    first = await service.call("job.submit_many", jobs, headers=headers)
    second = await service.call("job.submit_many", jobs, headers=headers)
    assert [j["id"] for j in first["jobs"]] == [j["id"] for j in second["jobs"]], "the same ten"
    assert len({j["id"] for j in first["jobs"]}) == 10 and all(j["duplicate"] for j in second["jobs"])
    said("so it is with many at once")

    racers = [service.call("job.submit", {"driver": {"noop": {}}}, headers={"Nats-Msg-Id": "race"}) for _ in range(20)]
    answers = await asyncio.gather(*racers)
    assert len({a["id"] for a in answers}) == 1, answers
    assert sum(not a["duplicate"] for a in answers) == 1, answers
    said("twenty at the same time with one id make one job")
    await service.call("job.kill", {"job": "once"})
    await service.until("once", "cancelled")


async def many(service):
    jobs = [{"name": f"many-{i:04}", "driver": {"noop": {}}, "input": "x", "labels": {"parity": str(i % 2)}} for i in range(1000)]
    given = await service.call("job.submit_many", {"jobs": jobs})
    assert [j["name"] for j in given["jobs"]] == [j["name"] for j in jobs], "in the order given"
    await service.refused("limit_exceeded", "1000", operation="job.submit_many", body={"jobs": jobs + jobs[:1]})
    mixed = [{"name": "good-one", "driver": {"noop": {}}}, {"name": "bad-one", "driver": {"noop": {}}, "resources": {"cpu_millis": 0}}]
    await service.refused("invalid_argument", "cpu_millis", operation="job.submit_many", body={"jobs": mixed})
    await service.refused("not_found", operation="job.get", body={"job": "good-one"})
    twins = [{"name": "twin", "driver": {"noop": {}}}] * 2
    await service.refused("in_use", "twin", operation="job.submit_many", body={"jobs": twins})
    said("a thousand at once, not one more, and all or none")

    await service.until("many-0999", "succeeded")
    seen, cursor, pages = [], None, 0
    while True:
        request = {"name_prefix": "many-", "limit": 300, **({"cursor": cursor} if cursor else {})}
        page = await service.call("job.list", request)
        assert set(page) >= {"jobs", "cursor"} and len(page["jobs"]) <= 300, page.keys()
        seen += [j["name"] for j in page["jobs"]]
        cursor, pages = page["cursor"], pages + 1
        if cursor is None:
            break
    assert sorted(seen) == sorted(j["name"] for j in jobs) and pages >= 4, (len(seen), pages)
    odd = await service.call("job.list", {"name_prefix": "many-", "labels": {"parity": "1"}, "limit": 1000})
    assert len(odd["jobs"]) == 500 or odd["cursor"], len(odd["jobs"])
    assert all(j["labels"] == {"parity": "1"} for j in odd["jobs"])
    done = await service.call("job.list", {"status": ["failed", "cancelled"], "name_prefix": "many-"})
    assert done["jobs"] == [], done
    said("lists page through, and filter by name, label and status")


async def processes(service):
    script = """
    echo to-out; echo to-err >&2
    test "$PWD" = "$OUTLIVE_STATE_DIR" || exit 41
    test -z "$OUTLIVE_RESTORED_CHECKPOINT" || exit 42
    cat "$OUTLIVE_INPUT" > "$OUTLIVE_RESULT"
    for name in NAMESPACE JOB_ID JOB_NAME JOB_VERSION ATTEMPT ZONE EXECUTOR; do
      eval "echo $name=\\$OUTLIVE_$name" >> "$OUTLIVE_RESULT"
    done
    echo "KEY=$KEY" >> "$OUTLIVE_RESULT"
    """
    spec = shell(script, name="environment", input="the input\n")
    spec["driver"]["process"]["env"] = {"KEY": "value with spaces"}
    given = await service.call("job.submit", spec)
    view = await service.call("job.wait", {"job": "environment", "timeout": "60s"})
    assert view["status"] == "succeeded" and view["exit_code"] == 0, view
    lines = view["result"].splitlines()
    told = dict(line.split("=", 1) for line in lines[1:])
    assert lines[0] == "the input", lines
    assert told["JOB_ID"] == given["id"] and told["JOB_NAME"] == "environment", told
    assert (told["NAMESPACE"], told["JOB_VERSION"], told["ATTEMPT"]) == ("default", "1", "1"), told
    assert told["EXECUTOR"] == view["executor"] and told["ZONE"] == view["zone"], (told, view)
    assert told["KEY"] == "value with spaces", told
    said("a process gets what the contract promises, and its result file becomes the result")

    history = (await service.call("job.history", {"job": "environment"}))["events"]
    kinds = [event["type"] for event in history]
    assert kinds == ["job_submitted", "job_placed", "attempt_started", "job_finished"], kinds
    assert all(TIME.match(event["at"]) and event["seq"] > 0 for event in history), history
    assert [event["seq"] for event in history] == sorted(event["seq"] for event in history)
    said("its history tells what happened, in order")

    await service.call("job.submit", shell("exit 3", name="failing", restart={"max_attempts": 2, "initial_backoff": "50ms"}))
    view = await service.call("job.wait", {"job": "failing", "timeout": "60s"})
    assert (view["status"], view["exit_code"], view["attempt"], view["restarts"]) == ("failed", 3, 2, 1), view
    assert view["reason"], view
    said("a batch job that keeps failing is tried as often as it says, and failed")

    await service.call("job.submit", shell("exit 1", name="retrying", kind="service", restart={"initial_backoff": "1h", "max_backoff": "1h"}))
    view = await service.until("retrying", "restarting")
    assert TIME.match(view["next_try_at"]) and view["reason"] and view["exit_code"] == 1, view
    why = await service.call("job.why", {"job": "retrying"})
    assert why["status"] == "restarting" and why["summary"] and isinstance(why["reasons"], list), why
    await service.call("job.cancel", {"job": "retrying"})
    await service.until("retrying", "cancelled")
    said("a service that fails shows restarting, with the reason and the next try, and can be cancelled meanwhile")

    await service.call("job.submit", shell("exec sleep 600", name="slow", timeout="300ms", restart={"max_attempts": 1}))
    view = await service.call("job.wait", {"job": "slow", "timeout": "60s"})
    assert view["status"] == "failed" and "time" in view["reason"].lower(), view
    said("an attempt that runs longer than its timeout is ended")

    await service.call("job.submit", {"name": "missing-program", "driver": {"process": {"command": ["/no/such/program"]}}, "restart": {"max_attempts": 1}})
    view = await service.call("job.wait", {"job": "missing-program", "timeout": "60s"})
    assert view["status"] == "failed" and "/no/such/program" in view["reason"], view
    said("a program that does not exist is named")


async def ends(service):
    polite = 'trap "echo polite > $OUTLIVE_RESULT; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    await service.call("job.submit", shell(polite, name="polite"))
    await service.until("polite", "running")
    view = await service.call("job.wait", {"job": "polite", "until": "running", "timeout": "10s"})
    assert view["status"] == "running" and view["executor"] and view["zone"], view
    await service.refused("timeout", operation="job.wait", body={"job": "polite", "timeout": "200ms"})
    await service.refused("in_use", "running", operation="job.delete", body={"job": "polite"})
    view = await service.call("job.cancel", {"job": "polite", "grace": "30s"})
    assert view["status"] in ("stopping", "cancelled"), view
    await service.until("polite", "cancelled")
    said("a cancelled job gets SIGTERM, and is cancelled once it is over")

    stubborn = 'trap "" TERM; echo up; while :; do sleep 0.05; done'
    for name, operation, extra in (("stubborn", "job.cancel", {"grace": "200ms"}), ("killed", "job.kill", {})):
        await service.call("job.submit", shell(stubborn, name=name))
        await service.until(name, "running")
        await service.call(operation, {"job": name, **extra})
        await service.until(name, "cancelled")
    said("one that does not listen is killed after the grace, or at once")

    view = await service.call("job.cancel", {"job": "killed"})
    assert view["status"] == "cancelled", "saying it twice changes nothing"
    await service.refused("in_use", operation="job.cancel", body={"job": "environment"})
    await service.refused("in_use", operation="job.kill", body={"job": "environment"})
    assert await service.call("job.delete", {"job": "killed"}) == {}
    await service.refused("not_found", "killed", operation="job.get", body={"job": "killed"})
    said("a finished job can be deleted, and is gone")


async def namespaces(service):
    await service.call("job.submit", {"name": "mine", "driver": {"noop": {}}}, namespace="team-a")
    view = await service.call("job.get", {"job": "mine"}, namespace="team-a")
    assert view["namespace"] == "team-a", view
    await service.refused("not_found", operation="job.get", body={"job": "mine"}, namespace="team-b")
    await service.refused("not_found", operation="job.get", body={"job": view["id"]}, namespace="team-b")
    assert (await service.call("job.list", {}, namespace="team-b"))["jobs"] == []
    said("a job is seen in its own namespace only")


async def operators(service):
    status = await service.call("sys.status")
    assert set(status) >= {"cluster", "version", "leader", "log", "zones", "jobs", "stored"}, status.keys()
    assert set(status["leader"]) >= {"scheduler", "zone", "term", "since"}, status["leader"]
    assert set(status["log"]) >= {"first_seq", "last_seq", "bytes", "stream_leader", "stream_leader_zone", "witness_seq"}
    assert set(status["jobs"]) == set(STATUSES), status["jobs"]
    assert status["jobs"]["succeeded"] >= 1000 and status["log"]["last_seq"] > 0, status
    assert {"zone", "state", "executors", "running"} <= set(status["zones"][0]), status["zones"]
    assert all({"kind", "bytes", "items"} <= set(kind) for kind in status["stored"]), status["stored"]
    executors = (await service.call("sys.executor.list"))["executors"]
    fields = {"name", "id", "zone", "host", "state", "reason", "capacity", "allocated", "running", "version", "last_heartbeat_ms"}
    assert executors and all(fields <= set(executor) for executor in executors), executors
    assert all(set(e["capacity"]) >= {"cpu_millis", "memory_bytes", "slots"} for e in executors), executors
    assert all(e["state"] == "ready" for e in executors), executors
    said("operators see the leader, the log, the zones, the jobs and the executors")


async def discovery(service):
    pong = json.loads((await service.raw("$SRV.PING.outlive", b"")).data)
    assert pong["name"] == "outlive" and pong["type"] == "io.nats.micro.v1.ping_response", pong
    info = json.loads((await service.raw("$SRV.INFO.outlive", b"")).data)
    assert info["type"] == "io.nats.micro.v1.info_response" and info["description"], info
    subjects = " ".join(endpoint["subject"] for endpoint in info["endpoints"])
    for operation in ("job.submit", "job.submit_many", "job.get", "job.wait", "sys.status", "sys.executor.list"):
        assert operation in subjects, f"{operation} is not in {subjects}"
    stats = json.loads((await service.raw(f"$SRV.STATS.outlive.{info['id']}", b"")).data)
    assert stats["type"] == "io.nats.micro.v1.stats_response", stats
    submit = [e for e in stats["endpoints"] if e["subject"].endswith(".job.submit")]
    assert submit and submit[0]["num_requests"] > 0, stats
    said("the service can be discovered, and counts its requests")


async def message_pack(service):
    headers = {"content-type": "application/msgpack"}
    spec = {"name": "packed", "driver": {"noop": {}}, "input": "packed input", "resources": {"memory": "128MiB"}}
    reply = await service.raw("outlive.v1.default.job.submit", pack(spec), headers)
    given = service.read(reply, unpack)
    assert reply.headers["content-type"] == "application/msgpack", reply.headers
    wait = await service.raw("outlive.v1.default.job.wait", pack({"job": given["id"], "timeout": "30s"}), headers)
    packed = service.read(wait, unpack)
    plain = await service.call("job.get", {"job": given["id"]})
    assert packed == plain, (packed, plain)
    try:
        service.read(await service.raw("outlive.v1.default.job.get", pack({"jop": "x"}), headers), unpack)
        raise AssertionError("an unknown field was taken")
    except Refused as refusal:
        assert refusal.code == "invalid_request" and "jop" in refusal.message, refusal
    for damaged in (b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffx", b"\x91" * 100_000, pack(spec)[:-3]):
        try:
            service.read(await service.raw("outlive.v1.default.job.submit", damaged, headers), unpack)
            raise AssertionError(f"{damaged[:20]} was taken")
        except Refused as refusal:
            assert refusal.code == "invalid_request", refusal
    await service.refused("invalid_request", "text/plain", operation="job.list", headers={"content-type": "text/plain"})
    said("MessagePack says the same as JSON, and nonsense in it is refused")


async def feed(service):
    events, logs = [], []

    async def heard(message):
        events.append((message.subject, json.loads(message.data)))

    async def written(message):
        logs.append((message.subject, message.data))

    subscriptions = [
        await service.connection.subscribe("outlive.v1.default.event.>", cb=heard),
        await service.connection.subscribe("outlive.v1.default.log.>", cb=written),
    ]
    await service.connection.flush()
    given = await service.call("job.submit", shell("echo out-line; echo err-line >&2", name="fed", input="secret-input"))
    await service.call("job.wait", {"job": given["id"], "timeout": "60s"})
    mine = f"outlive.v1.default.event.{given['id']}."
    deadline = asyncio.get_running_loop().time() + LONG
    while not any(subject == mine + "job_finished" for subject, _ in events):
        assert asyncio.get_running_loop().time() < deadline, events
        await asyncio.sleep(0.05)
    for subject, event in [e for e in events if e[0].startswith(mine)]:
        assert subject == mine + event["type"], (subject, event)
        assert {"job", "name", "type", "at", "attempt", "status"} <= set(event), event
        assert event["job"] == given["id"] and "secret-input" not in json.dumps(event), event
    assert [event["status"] for subject, event in events if subject.startswith(mine)][-1] == "succeeded", events
    while {b"out-line\n", b"err-line\n"} - {data for _, data in logs}:
        assert asyncio.get_running_loop().time() < deadline, logs
        await asyncio.sleep(0.05)
    assert (f"outlive.v1.default.log.{given['id']}.out", b"out-line\n") in logs, logs
    assert (f"outlive.v1.default.log.{given['id']}.err", b"err-line\n") in logs, logs
    for subscription in subscriptions:
        await subscription.unsubscribe()
    said("the feed tells of every step and no secret, and output comes as it is written")


async def nonsense(service):
    for body in (b"{", b"[]", b"null", b"nonsense", b"\xff\xfe{}", b'{"job":"a"}x', b"[" * 100_000, b'{"job":"\xff"}'):
        await service.refused("invalid_request", operation="job.get", body=body)
    await service.refused("invalid_request", "driver", operation="job.submit", body=b"")
    await service.refused("invalid_request", "job", operation="job.get", body={})
    await service.refused("invalid_request", "jop", operation="job.get", body={"jop": "x"})
    await service.refused("invalid_request", operation="job.get", body={"job": 7})
    await service.refused("invalid_request", operation="job.list", body=b"[]")
    await service.refused("invalid_request", operation="sys.status", body=b"[]")
    said("what is not a JSON object with the right fields is refused by name")

    noop = {"driver": {"noop": {}}}
    await service.submit_refused("invalid_request", {**noop, "colour": "red"}, "colour")
    await service.submit_refused("invalid_request", {"driver": {"docker": {}}}, "docker")
    await service.submit_refused("invalid_request", {"driver": {"noop": {"x": 1}}}, "x")
    await service.submit_refused("invalid_request", {**noop, "kind": "daemon"}, "kind")
    await service.submit_refused("invalid_request", {**noop, "kind": 7}, "kind")
    await service.submit_refused("invalid_request", {**noop, "input": 7}, "input")
    await service.submit_refused("invalid_request", {**noop, "resources": []}, "resources")
    await service.submit_refused("invalid_request", {"driver": {"noop": []}}, "driver")
    await service.submit_refused("invalid_request", {**noop, "input": {"base64": "???"}}, "input")
    await service.submit_refused("invalid_request", {**noop, "resources": {"cpu_millis": 1e99}}, "cpu_millis")
    await service.submit_refused("invalid_request", {**noop, "resources": {"cpu_millis": 1.5}}, "cpu_millis")
    await service.submit_refused("invalid_request", {**noop, "resources": {"memory": "lots"}}, "memory")
    await service.submit_refused("invalid_request", {**noop, "resources": {"memory": "-1MiB"}}, "memory")
    await service.submit_refused("invalid_request", {**noop, "timeout": "soon"}, "timeout")
    await service.submit_refused("invalid_request", {**noop, "timeout": -5}, "timeout")
    said("wrong types and words are refused by the name of their field")

    for field, value in (
        ("resources", {"cpu_millis": 0}),
        ("resources", {"cpu_millis": -1}),
        ("resources", {"cpu_millis": 4_000_000_000}),
        ("resources", {"memory": "1KiB"}),
        ("resources", {"memory": "9000TiB"}),
        ("checkpoint", {"interval": "99ms"}),
        ("checkpoint", {"interval": "25h"}),
        ("checkpoint", {"retain": 0}),
        ("checkpoint", {"retain": 4_000_000_000}),
        ("restart", {"max_attempts": 0}),
        ("restart", {"jitter": 2}),
        ("restart", {"multiplier": 0.5}),
        ("restart", {"multiplier": 1e300}),
        ("restart", {"initial_backoff": "2m", "max_backoff": "1m"}),
        ("timeout", "0ms"),
        ("timeout", "99999h"),
    ):
        named = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else field
        await service.submit_refused("invalid_argument", {**noop, field: value}, named)
    await service.submit_refused("invalid_argument", {"driver": {"process": {"command": []}}}, "command")
    await service.submit_refused("invalid_argument", {"driver": {"process": {"command": ["sh", "a\0b"]}}}, "command")
    await service.submit_refused("invalid_argument", {"driver": {"process": {"command": ["sh"], "env": {"A=B": "x"}}}}, "env")
    await service.submit_refused("invalid_argument", {"driver": {"process": {"command": ["sh"], "env": {"OUTLIVE_ZONE": "z"}}}}, "OUTLIVE_ZONE")
    await service.submit_refused("unsupported", {**noop, "kind": "service"}, "noop")
    said("numbers, sizes and durations have ranges, and are refused by field, value and range")

    for name in ("../../etc/passwd", "..", "a/b", "A", "a_b", "", "-a", "a-", "a" * 64, "a b", "a\0", "a\n", "é", "a.b", ">", "*"):
        refusal = await service.refused_somehow("job.submit", {"name": name, "driver": {"noop": {}}})
        assert refusal.code == "invalid_argument", (name, refusal)
        assert "name" in refusal.message, (name, refusal)
    for job in ("../x", "a/../b", "%2e%2e", "", "\0", "x" * 5_000):
        try:
            await service.call("job.get", {"job": job})
            raise AssertionError(f"job {job!r} was found")
        except Refused as refusal:
            assert refusal.code == "invalid_argument", (job, refusal)
    for namespace in ("UPPER", "-a", "a" * 64, "sys-", "a_b"):
        try:
            await service.call("job.list", {}, namespace=namespace)
            raise AssertionError(f"namespace {namespace!r} was taken")
        except Refused as refusal:
            assert refusal.code in ("invalid_request", "invalid_argument"), (namespace, refusal)
    said("tricks with paths and names are refused")

    await service.submit_refused("limit_exceeded", {**noop, "input": "x" * (256 * 1024 + 1)}, "input", str(256 * 1024))
    await service.submit_refused("limit_exceeded", {**noop, "input": "x" * (2 * 1024 * 1024)}, str(1024 * 1024))
    await service.refused("limit_exceeded", operation="job.get", body=b" " * (2 * 1024 * 1024))
    labels = {f"label-{i}": "x" for i in range(65)}
    await service.submit_refused("limit_exceeded", {**noop, "labels": labels}, "labels", "64")
    command = {"driver": {"process": {"command": ["sh"] * 1025}}}
    await service.submit_refused("limit_exceeded", command, "command", "1024")
    await service.refused("limit_exceeded", operation="job.submit", body=noop, headers={"Nats-Msg-Id": "i" * 257})
    biggest = await service.call("job.submit", {**noop, "input": "x" * (256 * 1024)})
    view = await service.call("job.wait", {"job": biggest["id"], "timeout": "30s"})
    assert len(view["result"]) == 256 * 1024
    said("what is too large is refused with the limit, and what is just not too large is taken")

    for operation, body in (
        ("job.list", {"limit": 0}),
        ("job.list", {"limit": 1001}),
        ("job.list", {"cursor": "nonsense"}),
        ("job.list", {"cursor": "x" * 10_000}),
        ("job.wait", {"job": "first", "timeout": "9999h"}),
        ("job.history", {"job": "first", "cursor": "../.."}),
    ):
        try:
            await service.call(operation, body)
            raise AssertionError(f"{operation} {body} was taken")
        except Refused as refusal:
            assert refusal.code in ("invalid_request", "invalid_argument", "limit_exceeded"), (operation, body, refusal)
    await service.refused("invalid_request", operation="job.list", body={"status": ["sleeping"]})
    for operation in ("get", "wait", "history", "why", "cancel", "kill", "delete"):
        await service.refused("not_found", "nobody", operation=f"job.{operation}", body={"job": "nobody"})
        await service.refused("not_found", operation=f"job.{operation}", body={"job": str(uuid.uuid4()).replace("-4", "-7", 1)})
    said("lists, cursors and jobs that do not exist are refused by name")

    try:
        answer = await service.call("job.explode", {})
        raise AssertionError(f"an operation that does not exist was answered: {answer}")
    except (NoRespondersError, Refused):
        pass
    assert (await service.call("sys.status"))["leader"]["term"] == TERM, "nothing of all this has cost the leader its term"
    said("after all of it the same leader leads")


TERM = None


async def main(url):
    global TERM
    connection = await nats.connect(url, max_reconnect_attempts=3)
    service = Service(connection)
    TERM = (await service.call("sys.status"))["leader"]["term"]
    wrong = 0
    life = (snapshots, stops_and_starts, updates_and_rollbacks)
    rest = (namespaces, operators, discovery, message_pack, feed, nonsense)
    for part in (submissions, idempotence, many, processes, ends, *life, *rest):
        try:
            await part(service)
        except (AssertionError, Refused, KeyError, nats.errors.Error):
            wrong += 1
            print(f"WRONG, in {part.__name__}:", flush=True)
            traceback.print_exc()
    await connection.close()
    return wrong


sys.exit(1 if asyncio.run(main(sys.argv[1])) else 0)
