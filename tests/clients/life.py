"""Section 4 of the contract: snapshots, stops and starts, updates and rollbacks."""

import asyncio
import uuid

from client import LONG, STATUSES, TIME, VIEW_FIELDS, Refused, said, shell

SNAPSHOT_FIELDS = {
    "job", "name", "status", "created_at", "ready_at", "size_bytes", "job_version", "initiator", "error",
}  # fmt: skip


def keeper(greeting, **more):
    """A service whose state is what it was once told; it says what it begins with."""
    script = f'echo "{greeting} $(cat state 2>/dev/null)"; [ -e state ] || echo kept > state; exec sleep 600'
    return shell(script, name="keeper", kind="service", checkpoint={"interval": "24h", "min_pause": "0ms"}, **more)


async def snapshot_over(service, job, name):
    deadline = asyncio.get_running_loop().time() + LONG
    while True:
        view = await service.call("snapshot.get", {"job": job, "name": name})
        assert set(view) >= SNAPSHOT_FIELDS and view["name"] == name, view
        assert view["status"] in ("creating", "ready", "failed", "deleting"), view
        if view["status"] != "creating":
            return view
        assert asyncio.get_running_loop().time() < deadline, view
        await asyncio.sleep(0.05)


async def snapshots(service):
    given = await service.call("job.submit", keeper("one"))
    await service.until("keeper", "running")
    made = await service.call("snapshot.create", {"job": "keeper", "name": "first"})
    assert set(made) >= SNAPSHOT_FIELDS and made["status"] == "creating", made
    assert (made["ready_at"], made["size_bytes"], made["error"]) == (None, None, None), made
    view = await snapshot_over(service, "keeper", "first")
    assert (view["status"], view["job"], view["initiator"]) == ("ready", given["id"], "user"), view
    assert view["job_version"] == 1 and view["error"] is None and view["size_bytes"] > 0, view
    assert TIME.match(view["created_at"]) and TIME.match(view["ready_at"]), view
    assert view["created_at"] <= view["ready_at"] and view["created_at"] == made["created_at"], (made, view)
    said("a snapshot is created, becomes ready, and its view has the contract's fields")

    headers = {"Nats-Msg-Id": str(uuid.uuid4())}
    for _ in range(2):
        again = await service.call("snapshot.create", {"job": "keeper", "name": "second"}, headers=headers)
        assert again["name"] == "second", again
    await service.refused("in_use", "second", operation="snapshot.create", body={"job": "keeper", "name": "second"})
    await snapshot_over(service, "keeper", "second")
    first = await service.call("snapshot.list", {"job": "keeper", "limit": 1})
    assert set(first) >= {"snapshots", "cursor"} and [v["name"] for v in first["snapshots"]] == ["second"], first
    rest = await service.call("snapshot.list", {"job": given["id"], "cursor": first["cursor"]})
    assert [v["name"] for v in rest["snapshots"]] == ["first"] and rest["cursor"] is None, rest
    assert all(set(view) >= SNAPSHOT_FIELDS for view in first["snapshots"] + rest["snapshots"])
    said("the same Nats-Msg-Id makes one snapshot; a name that is taken is refused; lists page through")

    wrong = {"job": "keeper", "name": "first", "created_at": "2020-01-01T00:00:00.000Z"}
    await service.refused("concurrent_modification", "created_at", operation="snapshot.delete", body=wrong)
    right = {**wrong, "created_at": view["created_at"]}
    gone = await service.call("snapshot.delete", right)
    assert gone["status"] == "deleting" and set(gone) >= SNAPSHOT_FIELDS, gone
    deadline = asyncio.get_running_loop().time() + LONG
    while "first" in [v["name"] for v in (await service.call("snapshot.list", {"job": "keeper"}))["snapshots"]]:
        assert asyncio.get_running_loop().time() < deadline, "it is deleted at last"
        await asyncio.sleep(0.05)
    await service.refused("not_found", "first", operation="snapshot.get", body={"job": "keeper", "name": "first"})
    await service.refused("not_found", "first", operation="snapshot.delete", body=right)
    said("deleting takes the exact created_at")

    for operation in ("create", "get", "delete"):
        body = {"job": "nobody", "name": "x", **({"created_at": wrong["created_at"]} if operation == "delete" else {})}
        await service.refused("not_found", "nobody", operation=f"snapshot.{operation}", body=body)
        await service.refused("invalid_request", "jop", operation=f"snapshot.{operation}", body={**body, "jop": 1})
        await service.refused("invalid_request", "name", operation=f"snapshot.{operation}", body={"job": "keeper"})
    await service.refused("invalid_request", "created_at", operation="snapshot.delete", body={"job": "keeper", "name": "x"})
    await service.refused("not_found", "nobody", operation="snapshot.list", body={"job": "nobody"})
    for bad in ({"limit": 0}, {"limit": 1001}, {"cursor": "nonsense"}):
        await service.refused("invalid_argument", operation="snapshot.list", body={"job": "keeper", **bad})
    await service.refused("invalid_argument", "system-", operation="snapshot.create", body={"job": "keeper", "name": "system-x"})
    for name in ("../x", "A", "", "a" * 64, "a.b"):
        refusal = await service.refused_somehow("snapshot.create", {"job": "keeper", "name": name})
        assert refusal.code in ("invalid_request", "invalid_argument") and "name" in refusal.message, (name, refusal)
    await service.call("job.submit", {"name": "stateless", "driver": {"noop": {}}})
    await service.until("stateless", "succeeded")
    refusal = await service.refused_somehow("snapshot.create", {"job": "stateless", "name": "x"})
    assert refusal.code in ("in_use", "unsupported"), refusal
    assert (await service.call("job.get", {"job": "keeper"}))["status"] == "running", "none of it has changed anything"
    said("snapshots are refused by name, for jobs that are not there, with reserved names, and of what keeps no state")


async def stops_and_starts(service):
    view = await service.call("job.stop", {"job": "keeper", "force": False})
    assert set(view) >= VIEW_FIELDS and view["status"] in ("stopping", "stopped"), view
    await service.until("keeper", "stopped")
    newest = (await service.call("snapshot.list", {"job": "keeper", "limit": 1}))["snapshots"][0]
    assert newest["initiator"] == "system" and newest["name"].startswith("system-"), newest
    assert newest["status"] == "ready", newest
    assert (await service.call("job.stop", {"job": "keeper"}))["status"] == "stopped", "twice is no fault"
    await service.refused("in_use", "stopped", operation="snapshot.create", body={"job": "keeper", "name": "x"})
    said("a stop takes a system snapshot")

    start = "job.start"
    restore = lambda **restore: {"job": "keeper", "restore": restore}  # noqa: E731
    await service.refused("not_found", "no-such", operation=start, body=restore(mode="snapshot", snapshot="no-such"))
    await service.refused("invalid_argument", "restore", operation=start, body=restore(mode="snapshot"))
    await service.refused("invalid_argument", "restore", operation=start, body=restore(mode="latest", snapshot="second"))
    await service.refused("invalid_request", "mode", operation=start, body=restore(mode="newest"))
    await service.refused("invalid_request", "x", operation=start, body={**restore(mode="latest"), "x": 1})
    await service.refused("not_found", "nobody", operation=start, body={"job": "nobody"})
    assert (await service.call("job.get", {"job": "keeper"}))["status"] == "stopped", "nothing has started"
    said("what cannot be started from is refused, and nothing starts")

    for mode, chosen in (("latest", {}), ("snapshot", {"snapshot": "second"}), ("none", {})):
        view = await service.call(start, restore(mode=mode, **chosen))
        assert set(view) >= VIEW_FIELDS and view["status"] in ("starting", "running"), view
        await service.until("keeper", "running")
        await service.refused("in_use", "running", operation=start, body=restore(mode="latest"))
        history = (await service.call("job.history", {"job": "keeper", "limit": 1000}))["events"]
        asked = [event for event in history if event["type"] == "start_requested"][-1]
        assert asked["restore"] == mode, asked
        if mode != "none":
            await service.call("job.stop", {"job": "keeper", "force": True})
            await service.until("keeper", "stopped")
    said("a stopped service is started from the latest, a snapshot, or nothing, and the history says from which")

    await service.call("job.submit", shell("exec sleep 600", name="batch"))
    await service.until("batch", "running")
    await service.refused("unsupported", operation="job.stop", body={"job": "batch"})
    await service.refused("not_found", "nobody", operation="job.stop", body={"job": "nobody"})
    await service.call("job.kill", {"job": "batch"})
    await service.until("batch", "cancelled")
    failing = shell("exit 1", name="sick", kind="service", restart={"initial_backoff": "1h", "max_backoff": "1h"})
    await service.call("job.submit", failing)
    await service.until("sick", "restarting")
    await service.refused("in_use", "force", operation="job.stop", body={"job": "sick"})
    await service.call("job.stop", {"job": "sick", "force": True})
    await service.until("sick", "stopped")
    assert await service.call("job.delete", {"job": "sick"}) == {}
    said("a service too sick for a snapshot is stopped by force, and can be deleted; a batch job cannot be stopped")


async def versions_of(service):
    reply = await service.call("job.versions", {"job": "keeper"})
    assert all(set(v) >= {"version", "at", "spec", "status"} for v in reply["versions"]), reply
    assert all(v["status"] in ("active", "superseded", "rolled_back") and TIME.match(v["at"]) for v in reply["versions"])
    return [(v["version"], v["status"]) for v in reply["versions"]]


async def settled(service, version):
    """The job runs this version, and has done with proving it."""
    deadline = asyncio.get_running_loop().time() + LONG
    while True:
        view = await service.call("job.get", {"job": "keeper"})
        assert view["status"] in STATUSES, view
        if (view["status"], view["version"]) == ("running", version):
            return view
        assert asyncio.get_running_loop().time() < deadline, view
        await asyncio.sleep(0.05)


async def updates_and_rollbacks(service):
    assert await versions_of(service) == [(1, "active")]
    update = lambda version, spec: {"job": "keeper", "expected_version": version, "spec": spec}  # noqa: E731
    await service.refused("concurrent_modification", "expected_version", operation="job.update", body=update(7, keeper("two")))
    await service.refused("unsupported", operation="job.update", body=update(1, {**keeper("two"), "kind": "batch"}))
    await service.refused("unsupported", operation="job.update", body=update(1, {**keeper("two"), "driver": {"noop": {}}}))
    await service.refused("invalid_argument", "name", operation="job.update", body=update(1, {**keeper("two"), "name": "x"}))
    await service.refused("invalid_argument", "cpu_millis", operation="job.update", body=update(1, keeper("two", resources={"cpu_millis": 0})))
    await service.refused("invalid_request", "colour", operation="job.update", body=update(1, keeper("two", colour="red")))
    await service.refused("invalid_request", "spec", operation="job.update", body={"job": "keeper", "expected_version": 1})
    await service.refused("invalid_request", "expected_version", operation="job.update", body={"job": "keeper", "spec": keeper("two")})
    await service.refused("not_found", "nobody", operation="job.update", body={**update(1, keeper("two")), "job": "nobody"})
    await service.refused("not_found", "nobody", operation="job.versions", body={"job": "nobody"})
    await service.refused("not_found", operation="job.rollback", body={"job": "keeper", "expected_version": 1})
    await service.refused("not_found", "nobody", operation="job.rollback", body={"job": "nobody", "expected_version": 1})
    await service.refused("in_use", operation="job.update", body={**update(1, shell("true")), "job": "batch"})
    assert await versions_of(service) == [(1, "active")] and (await settled(service, 1))["version"] == 1
    said("an update that names another version, changes what a job is, or is no specification, changes nothing")

    racers = [service.call("job.update", update(1, keeper("two"))) for _ in range(2)]
    answers = await asyncio.gather(*racers, return_exceptions=True)
    refusals = [answer.code for answer in answers if isinstance(answer, Refused)]
    assert refusals == ["concurrent_modification"], answers
    view = next(answer for answer in answers if not isinstance(answer, Refused))
    assert set(view) >= VIEW_FIELDS and view["status"] == "updating", view
    await settled(service, 2)
    assert await versions_of(service) == [(1, "superseded"), (2, "active")]
    newest = [v for v in (await service.call("snapshot.list", {"job": "keeper"}))["snapshots"] if v["initiator"] == "system"]
    assert newest[0]["job_version"] == 1, newest[0]
    said("of two updates of one version one wins, and it starts from a system snapshot of the version before")

    failing = shell("exit 9", name="keeper", kind="service", restart={"max_attempts": 1})
    await service.call("job.update", update(2, failing))
    deadline = asyncio.get_running_loop().time() + LONG
    while (await versions_of(service))[-1] != (3, "rolled_back"):
        assert asyncio.get_running_loop().time() < deadline, await versions_of(service)
        await asyncio.sleep(0.05)
    await settled(service, 2)
    assert await versions_of(service) == [(1, "superseded"), (2, "active"), (3, "rolled_back")]
    last = (await service.call("job.versions", {"job": "keeper"}))["versions"][-1]
    assert "9" in last["reason"], last
    said("a version that fails is rolled back at once, with the reason, and the version is the one before again")

    await service.call("job.update", update(2, keeper("four")))
    await settled(service, 4)
    await service.refused("concurrent_modification", operation="job.rollback", body={"job": "keeper", "expected_version": 2})
    view = await service.call("job.rollback", {"job": "keeper", "expected_version": 4})
    assert set(view) >= VIEW_FIELDS and view["status"] == "rolling_back", view
    await settled(service, 2)
    assert (await versions_of(service))[-1] == (4, "rolled_back"), await versions_of(service)
    await service.call("job.stop", {"job": "keeper", "force": True})
    await service.until("keeper", "stopped")
    assert await service.call("job.delete", {"job": "keeper"}) == {}
    for operation in ("job.get", "job.versions", "snapshot.list"):
        await service.refused("not_found", "keeper", operation=operation, body={"job": "keeper"})
    said("the next update is a number further, a rollback goes to the version that ran before, and a delete takes all of it")
