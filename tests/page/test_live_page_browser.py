"""The page in a real browser: what people see is what the service says, at every width, through every trouble."""

from __future__ import annotations

import re

import pytest
from page_world import PlayedService, fleet
from playwright.sync_api import expect

from serve_app.live.camera_book import LANES
from serve_app.live.spread import summed
from serve_app.memory_level import MemoryLevel
from serve_app.verdicts import Outcome, Verdict, VerdictKind

WIDTHS = [1280, 390]
EVIL = [
    "<img src=x onerror=\"document.body.dataset.evil='yes'\">",
    "<script>document.body.dataset.evil='yes'</script>",
    "\"><svg onload=document.body.dataset.evil='yes'>",
    "javascript:document.body.dataset.evil='yes'",
    "}</style><b>bold",
    "{{7*7}} ${7*7}",
    "a" * 5000,
    "\u202egnp.1-etag\u0000\n\t",
    "カメラ-１ 🎥",
]


def still(num_cameras, **options):
    """A service of which nothing moves any more, so that what is read stays true."""
    source = PlayedService(fleet(num_cameras), **options)
    source.is_watched()
    source.play(8)
    source.is_still = True
    return source


def milliseconds(text):
    """A latency as a number."""
    value, unit = text.split()
    return float(value) * {"ms": 1, "s": 1000}[unit]


def num_finished(found):
    """What the page says of frames that have finished."""
    return int(found.text("#counts tr[data-name='finished'] td:nth-child(2)").replace(",", ""))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_numbers_are_those_of_the_service(serve, tab, width):
    """Counts to the frame, quantiles as the routers' histograms tell them, every camera, lane, replica and router."""
    source = still(11, num_routers=2)
    source.sends("gate-1", (480, 640), outcome=Outcome.EXPIRED, num_frames=3)
    source.sends(
        "gate-1", (480, 640), outcome=Outcome.REJECTED, verdict=Verdict(VerdictKind.REJECT, "no"), num_frames=2
    )
    source.sends("gate-1", (480, 640))
    found = tab(serve(source).url, width=width)
    expect(found.page.locator("#state-text")).to_have_text("live")

    for title, counts in (("verdict", source.verdicts), ("outcome", source.outcomes)):
        for name, count in counts.items():
            row = found.page.locator(f"#counts table:has(th:text-is('{title}')) tr[data-name='{name}'] td").nth(1)
            expect(row).to_have_text(f"{count:,}")
    for lane in LANES:
        total = summed(side._book.total_s()[lane] for side in source.routers.values())
        row = found.page.locator(f"#classes tr[data-class='{lane}']")
        told = re.fullmatch(r"since the start: ([\d,]+) frames, p50 (.+), p99 (.+)", row.get_attribute("title"))
        assert int(told[1].replace(",", "")) == total.num_values
        assert milliseconds(told[2]) == pytest.approx(1000 * total.quantile_s(0.5), rel=0.05)
        assert milliseconds(told[3]) == pytest.approx(1000 * total.quantile_s(0.99), rel=0.05)
    assert found.page.locator(".camera .name").all_inner_texts() == sorted(source.cameras)
    assert [found.text(f"[data-pool='near'] [data-lane='{lane}'] b") for lane in LANES] == ["0", "2", "5"]
    assert found.page.locator("#replicas tbody tr").count() == 3
    assert found.page.locator("#routers tbody tr").count() == 2
    assert "3/3" in found.text("[data-kpi='replicas']")
    flows = found.page.locator("#flow").inner_text()
    for word in ("640×480", "2560×1440", "1280×736", "small", "medium", "large"):
        assert word in flows


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(serve, tab, width):
    """No sideways scrolling, with sixty cameras, on a phone as on a wall."""
    found = tab(serve(still(60)).url, width=width)
    expect(found.page.locator(".camera")).to_have_count(60)

    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.evaluate(
        "[...document.querySelectorAll('.kpi .value')].filter(each => each.scrollWidth > each.clientWidth).length"
    ) == 0  # fmt: skip


def test_numbers_move_while_one_looks(serve, tab):
    """Without a reload; rates are those of the fleet."""
    source = PlayedService(fleet(11))
    found = tab(serve(source, every_s=0.2).url)
    before = num_finished(found)
    found.wait(lambda: num_finished(found) > before + 100)


def test_pictures_of_cameras_are_seen(serve, tab):
    """Annotated last frames, at most 480 px; of what is out of sight none is loaded."""
    found = tab(serve(still(5)).url)
    expect(found.page.locator(".camera[data-picture='shown']")).to_have_count(5)
    sizes = found.page.evaluate(
        "Promise.all([...document.querySelectorAll('.camera img')].map(async each =>"
        " { await each.decode(); return [each.naturalWidth, each.naturalHeight] }))"
    )
    assert {max(size) for size in sizes} == {480}

    many = tab(serve(still(60)).url, height=500)
    expect(many.page.locator(".camera[data-picture='shown']").first).to_be_visible()
    assert many.page.locator(".camera").last.get_attribute("data-picture") is None


def test_it_survives_a_restart_of_its_server(serve, tab):
    """Says that it reconnects, keeps what it knew, and goes on with numbers and charts, on its own."""
    source = PlayedService(fleet(5))
    server = serve(source, every_s=0.2)
    found = tab(server.url, may_be_away=True)
    expect(found.page.locator("html")).to_have_attribute("data-number", re.compile(r"^([5-9]|\d\d+)$"))
    server.stop()
    expect(found.page.locator("#state-text")).to_have_text("reconnecting")
    expect(found.page.locator("#notice")).to_contain_text("No connection to this page's server")
    expect(found.page.locator("#notice")).to_contain_text("old")
    assert found.page.locator(".camera").count() == 5
    points = found.page.locator("#latency-chart polyline").first.get_attribute("points")
    server.start()
    expect(found.page.locator("#state-text")).to_have_text("live")
    expect(found.page.locator("#notice")).to_be_hidden()
    before = source.outcomes["finished"]
    found.wait(lambda: num_finished(found) > before)
    assert len(found.page.locator("#latency-chart polyline").first.get_attribute("points")) >= len(points) / 2


def test_a_service_that_is_away_is_told_and_its_return_is_seen(serve, tab):
    """In the words of the error; what is old is greyed and its age said."""
    source = still(3)
    found = tab(serve(source, every_s=0.2).url)
    expect(found.page.locator("#state-text")).to_have_text("live")
    source.is_away = True
    expect(found.page.locator("#state-text")).to_have_text("service away")
    expect(found.page.locator("#notice")).to_contain_text("none of its routers answers; look at: framelane status")
    source.is_away = False
    expect(found.page.locator("#state-text")).to_have_text("live")
    expect(found.page.locator("#notice")).to_be_hidden()


def test_names_from_outside_are_text_and_nothing_else(serve, tab):
    """Markup, scripts, line breaks, marks that turn text round: shown as they are, or cut, and never run."""
    source = still(0)
    for name in EVIL:
        source.sends(name, (480, 640))
    found = tab(serve(source).url)
    expect(found.page.locator(".camera")).to_have_count(len(EVIL))
    expect(found.page.locator(".camera[data-picture='shown']").first).to_be_visible()

    shown = found.page.evaluate("[...document.querySelectorAll('.camera .name')].map(each => each.textContent)")
    assert sorted(shown) == sorted([*(name for name in EVIL if len(name) < 200), "a" * 119 + "…"])
    assert found.page.locator(".camera .name *").count() == 0
    assert found.page.evaluate("document.body.dataset.evil") is None
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_policy_stops_what_would_get_through(serve, chromium):
    """Even code that puts a name into the page as markup, or loads from elsewhere, does nothing but be refused."""
    server = serve(still(1))
    page = chromium.new_page()
    page.goto(server.url)
    refused = page.evaluate(
        """() => {
            const found = [];
            const evil = "<img src=x onerror=\\"document.title='evil'\\">";
            try { document.body.innerHTML = evil; } catch (error) { found.push(error.name); }
            const script = document.createElement("script");
            try { script.src = "https://elsewhere.invalid/x.js"; } catch (error) { found.push(error.name); }
            return found;
        }"""
    )  # fmt: skip
    assert refused == ["TypeError", "TypeError"]
    assert page.title() == "Framelane"
    assert page.evaluate("fetch('https://elsewhere.invalid/').then(() => 'went', () => 'refused')") == "refused"
    page.close()


def test_a_key_is_asked_for_and_kept_out_of_addresses(serve, tab):
    """A wrong one is asked for again; the right one shows everything, pictures too, and is in no address."""
    found = tab(serve(still(2), key="right").url)
    addresses = []
    found.page.on("request", lambda request: addresses.append(request.url))
    expect(found.page.locator("#key-dialog")).to_be_visible()
    found.page.fill("#key", "wrong")
    found.page.keyboard.press("Enter")
    expect(found.page.locator("#key-why")).to_contain_text("not known here")
    found.page.fill("#key", "right")
    found.page.click("#key-form button")
    expect(found.page.locator("#state-text")).to_have_text("live")
    expect(found.page.locator(".camera[data-picture='shown']")).to_have_count(2)
    found.page.reload()
    expect(found.page.locator("#state-text")).to_have_text("live")
    assert not any("right" in address or "wrong" in address for address in addresses)
    found.said[:] = [line for line in found.said if "401" not in line]


def test_one_viewer_too_many_waits_for_a_place(serve, tab):
    """It says so, and comes in by itself when another leaves."""
    server = serve(still(1), max_viewers=1)
    first = tab(server.url)
    expect(first.page.locator("#state-text")).to_have_text("live")
    second = tab(server.url)
    expect(second.page.locator("#state-text")).to_have_text("full")
    expect(second.page.locator("#notice")).to_contain_text("1 watch already")
    first.page.goto("about:blank")
    expect(second.page.locator("#state-text")).to_have_text("live")
    second.said[:] = [line for line in second.said if "503" not in line]


def test_nobody_watches_nothing_is_asked(serve, tab):
    """Closed pages let the collector rest and the routers forget."""
    source = still(2)
    server = serve(source, linger_s=0.1, every_s=0.1)
    found = tab(server.url)
    expect(found.page.locator(".camera[data-picture='shown']")).to_have_count(2)
    assert sum(len(side._last) for side in source.routers.values()) == 2
    found.page.goto("about:blank")
    server.wait_until_resting()
    assert source.num_rests == 1
    assert sum(len(side._last) for side in source.routers.values()) == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark_follow_the_system_or_the_button(serve, tab, theme):
    """The choice outlives a reload."""
    found = tab(serve(still(1)).url, theme=theme)

    def is_dark():
        red, green, blue = map(
            int,
            re.findall(r"\d+", found.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))[:3],
        )
        return red + green + blue < 200

    assert is_dark() == (theme == "dark")
    presses = {"light": 2, "dark": 1}[theme]
    for _ in range(presses):
        found.page.click("#theme")
    assert is_dark() != (theme == "dark")
    found.page.reload()
    assert is_dark() != (theme == "dark")


def test_states_are_seen(serve, tab):
    """Nothing yet; a silent camera; frames that are not served; memory and ladder in a bad hour."""
    empty = tab(serve(PlayedService()).url)
    expect(empty.page.locator(".empty").filter(has_text="No frame has come yet")).to_be_visible()

    source = still(3)
    source.level, source.rung = MemoryLevel.HIGH, 1
    source.sends("gate-1", (480, 640), outcome=Outcome.EXPIRED)
    bad = tab(serve(source).url)
    expect(bad.page.locator(".camera[data-state='unserved'] .trouble")).to_have_text("last frame: expired")
    expect(bad.page.locator("[data-pool='near'] [data-level='high'] b")).to_contain_text("high")
    expect(bad.page.locator("[data-pool='near'] .ladder [data-now='yes']")).to_have_text("full ≤ 1280×736")


def test_cameras_are_found_by_name(serve, tab):
    """Where there are many."""
    found = tab(serve(still(60)).url)
    found.page.fill("#filter", "GATE-")
    expect(found.page.locator(".camera:visible")).to_have_count(8)
