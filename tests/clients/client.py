"""NATS requests as the contract has them, for a client that is not ours."""

import asyncio
import json
import re
import struct

UUID_V7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
HTTP_LIKE = {
    "invalid_request": "400",
    "invalid_argument": "400",
    "not_found": "404",
    "in_use": "409",
    "concurrent_modification": "409",
    "limit_exceeded": "429",
    "unsupported": "400",
    "unauthorized": "403",
    "unavailable": "503",
    "timeout": "408",
}
STATUSES = (
    "pending starting running restarting stopping stopped updating rolling_back succeeded failed cancelled"
).split()
VIEW_FIELDS = {
    "id", "namespace", "name", "kind", "version", "status", "reason", "attempt", "executor", "zone", "restarts",
    "checkpoint", "last_recovery", "next_try_at", "submitted_at", "started_at", "finished_at", "exit_code", "result",
    "labels",
}  # fmt: skip
LONG = 60  # Seconds; a bound for what should take a moment.


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


### MessagePack, as much of it as JSON can say


def pack(value):
    if value is None:
        return b"\xc0"
    if value is False:
        return b"\xc2"
    if value is True:
        return b"\xc3"
    if isinstance(value, int):
        return struct.pack(">Bq", 0xD3, value)
    if isinstance(value, str):
        data = value.encode()
        return struct.pack(">BI", 0xDB, len(data)) + data
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(type(value))


def unpack(data):
    value, rest = unpack_one(data)
    assert rest == b"", f"{len(rest)} bytes after the value"
    return value


def unpack_one(data):
    tag, data = data[0], data[1:]
    fixed = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q", 0xCA: ">f",
             0xCB: ">d"}  # fmt: skip
    sized = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xDC: ">H", 0xDD: ">I",
             0xDE: ">H", 0xDF: ">I"}  # fmt: skip
    if tag <= 0x7F:
        return tag, data
    if tag >= 0xE0:
        return tag - 256, data
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], data
    if tag in fixed:
        size = struct.calcsize(fixed[tag])
        return struct.unpack(fixed[tag], data[:size])[0], data[size:]
    if tag in sized:
        size = struct.calcsize(sized[tag])
        length, data = struct.unpack(sized[tag], data[:size])[0], data[size:]
    elif tag <= 0x8F:
        length, tag = tag & 0x0F, 0xDF
    elif tag <= 0x9F:
        length, tag = tag & 0x0F, 0xDD
    else:
        length, tag = tag & 0x1F, 0xDB
    if tag in (0xD9, 0xDA, 0xDB):
        return data[:length].decode(), data[length:]
    if tag in (0xC4, 0xC5, 0xC6):
        return data[:length], data[length:]
    items = []
    for _ in range(length * (2 if tag in (0xDE, 0xDF) else 1)):
        item, data = unpack_one(data)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if tag in (0xDE, 0xDF) else items), data


### Requests


class Service:
    def __init__(self, connection):
        self.connection = connection

    async def raw(self, subject, body, headers=None):
        return await self.connection.request(subject, body, timeout=LONG, headers=headers)

    async def call(self, operation, body=None, namespace="default", headers=None):
        subject = f"outlive.v1.{operation}" if operation.startswith("sys.") else f"outlive.v1.{namespace}.{operation}"
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return self.read(await self.raw(subject, data, headers))

    @staticmethod
    def read(reply, decode=json.loads):
        value = decode(reply.data)
        headers = reply.headers or {}
        if "error" in value and "code" in (value["error"] or {}):
            error = value["error"]
            assert headers.get("Nats-Service-Error-Code") == HTTP_LIKE[error["code"]], (headers, error)
            assert headers.get("Nats-Service-Error"), headers
            assert error["message"], error
            raise Refused(error["code"], error["message"])
        assert "Nats-Service-Error-Code" not in headers, headers
        return value

    async def refused(self, code, *words, **call):
        """The call is refused with this code, and the message has these words."""
        operation, body = call.pop("operation"), call.pop("body", None)
        try:
            answer = await self.call(operation, body, **call)
        except Refused as refusal:
            assert refusal.code == code, f"{operation}: {refusal} instead of {code}"
            for word in words:
                assert word in refusal.message, f"{operation}: `{word}` is not in: {refusal.message}"
            return refusal
        raise AssertionError(f"{operation} {str(body)[:200]} was not refused with {code} but answered {answer}")

    async def refused_somehow(self, operation, body):
        """The call is refused, whatever the code."""
        try:
            answer = await self.call(operation, body)
        except Refused as refusal:
            return refusal
        raise AssertionError(f"{operation} {str(body)[:200]} was answered {answer}")

    async def submit_refused(self, code, spec, *words):
        return await self.refused(code, *words, operation="job.submit", body=spec)

    async def until(self, job, status):
        deadline = asyncio.get_running_loop().time() + LONG
        while True:
            view = await self.call("job.get", {"job": job})
            if view["status"] == status:
                return view
            assert asyncio.get_running_loop().time() < deadline, f"{job} should have become {status}: {view}"
            await asyncio.sleep(0.05)


def shell(script, **more):
    return {"driver": {"process": {"command": ["sh", "-c", script]}}, **more}


def said(what):
    print(f"ok: {what}", flush=True)


