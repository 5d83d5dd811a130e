"""How much may be inside the door, and for how long."""

from __future__ import annotations

import asyncio

import pytest
from fake_gateway import Site, jpeg, picture, plan_of

HEADERS = {"content-type": "image/jpeg"}


def site_of(tmp_path, **http):
    """With small limits."""
    return Site(plan_of(tmp_path, **({"max_body_bytes": 20_000, "max_bodies_bytes": 40_000} | http)))


def trickle(parts, pause_s=0.0):
    """A body that comes in parts, without a length; `stopped` tells how far it was read."""

    async def body():
        for part in parts:
            body.num_read += 1
            yield part
            await asyncio.sleep(pause_s)

    body.num_read = 0
    return body


def test_a_body_in_parts_is_read_whole(tmp_path):
    """Chunked, as cameras that do not know the length send it."""
    site, data = site_of(tmp_path), jpeg()

    async def scenario():
        async with site.client() as client:
            body = trickle([data[:100], data[100:]])
            return await client.post("/v1/detect", content=body(), headers=HEADERS)

    assert asyncio.run(scenario()).status_code == 200


def test_a_body_without_end_is_left_where_the_limit_is(tmp_path):
    """Whoever sends it, no more than the limit is kept."""
    site, body = site_of(tmp_path), trickle([b"x" * 1000] * 1000)

    async def scenario():
        async with site.client() as client:
            return await client.post("/v1/detect", content=body(), headers=HEADERS)

    response = asyncio.run(scenario())
    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert body.num_read <= 21
    assert site.app.state.door.num_bytes == 0


@pytest.mark.parametrize(("length", "status"), [("999999999", 413), ("-5", 400), ("9" * 30, 400), ("²", 400)])
def test_an_announced_length_is_judged_before_anything_is_read(tmp_path, length, status):
    """A client that announces a terabyte is refused at once."""
    site, body = site_of(tmp_path), trickle([b"x"])

    async def scenario():
        async with site.client() as client:
            headers = HEADERS | {"content-length": length.encode()}
            return await client.post("/v1/detect", content=body(), headers=headers)

    assert asyncio.run(scenario()).status_code == status
    assert body.num_read == 0


def test_a_slow_client_is_sent_away(tmp_path):
    """Even one that always sends a little more."""
    site = site_of(tmp_path, read_timeout_s=0.05)

    async def scenario():
        async with site.client() as client:
            return await client.post("/v1/detect", content=trickle([b"x"] * 10_000, 0.01)(), headers=HEADERS)

    response = asyncio.run(scenario())
    assert response.status_code == 408
    assert (site.app.state.door.num_requests, site.app.state.door.num_bytes) == (0, 0)


def waiting_for(client, count, **params):
    """So many requests that the service does not answer yet."""
    return [
        asyncio.create_task(client.post("/v1/detect", content=jpeg(), headers=HEADERS, params=params))
        for _ in range(count)
    ]


async def until(condition):
    """Let others run until this holds."""
    while not condition():  # noqa: ASYNC110 (what it waits for is no event of its own)
        await asyncio.sleep(0)


def test_critical_requests_find_room_when_others_have_filled_theirs(tmp_path):
    """A fifth of the places is theirs."""
    site = site_of(tmp_path, max_requests=10, max_bodies_bytes=10_000_000)
    door = site.app.state.door

    async def scenario():
        site.gateway.gate = asyncio.Event()
        async with site.client() as client:
            inside = waiting_for(client, 8)
            await until(lambda: door.num_requests == 8)
            refused = await client.post("/v1/detect", content=jpeg(), headers=HEADERS)
            critical = waiting_for(client, 2, priority="critical")
            await until(lambda: door.num_requests == 10)
            full = await client.post("/v1/detect", content=jpeg(), headers=HEADERS, params={"priority": "critical"})
            site.gateway.gate.set()
            return refused, full, await asyncio.gather(*inside, *critical)

    refused, full, served = asyncio.run(scenario())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert full.status_code == 503
    assert {response.status_code for response in served} == {200}
    assert (door.num_requests, door.num_bytes) == (0, 0)


def test_bodies_and_images_together_have_a_bound(tmp_path):
    """A frame of 48×64 is 9 kB decoded, of which four have room among normal ones; a critical one has it still."""
    most = 5 * (picture().nbytes + len(jpeg())) + 10
    site = site_of(tmp_path, max_bodies_bytes=most, max_body_bytes=2_000)
    door = site.app.state.door

    async def scenario():
        site.gateway.gate = asyncio.Event()
        async with site.client() as client:
            for count in range(1, 5):
                waiting_for(client, 1)
                await until(lambda count=count: len(site.gateway.asked) == count)
            refused = await client.post("/v1/detect", content=jpeg(), headers=HEADERS)
            critical = waiting_for(client, 1, priority="critical")
            await until(lambda: len(site.gateway.asked) == 5)
            held = door.num_bytes
            site.gateway.gate.set()
            return refused.status_code, held, (await critical[0]).status_code

    assert asyncio.run(scenario()) == (503, most - 10, 200)


def test_who_is_alone_has_room(tmp_path):
    """Whatever the plan says of all together, the largest frame that is allowed can be sent."""
    site = site_of(tmp_path, max_bodies_bytes=20_000)
    assert site.send(jpeg((480, 640))).status_code == 200


def test_a_part_without_room_harms_no_other(tmp_path):
    """It is told to come again, as it would have been alone."""
    site = site_of(tmp_path, max_bodies_bytes=60_000)

    async def scenario():
        site.gateway.gate = asyncio.Event()
        async with site.client() as client:
            waiting_for(client, 1)
            await until(lambda: site.gateway.asked)
            files = [("image", ("a.jpg", jpeg((16, 16)))), ("image", ("b.jpg", jpeg((200, 200))))]
            both = asyncio.create_task(client.post("/v1/detect", files=files))
            await until(lambda: len(site.gateway.asked) == 2)
            site.gateway.gate.set()
            return await both

    assert [frame["status"] for frame in asyncio.run(scenario()).json()["frames"]] == [200, 503]
