"""Versions that are given once, aliases that point to one bundle, and their history."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import Bundle, Catalog, CatalogError


def bundle(digest: str, name: str = "nav2d", system: str = "nav2d") -> Bundle:
    return Bundle(
        digest=digest, name=name, system=system, interface_hash="1", objective_hash="2",
        path=f"/bundles/{digest}", created_us=1,
    )  # fmt: skip


def registered(catalog: Catalog, *digests: str) -> list[int]:
    return [catalog.register(bundle(digest), at_us=5, by="me") for digest in digests]


def test_a_version_is_given_once_and_by_name(catalog: Catalog) -> None:
    assert registered(catalog, "a", "b", "a", "c", "b") == [1, 2, 1, 3, 2]
    assert catalog.register(bundle("d", name="other"), at_us=6, by="me") == 1
    assert [(row.version, row.digest, row.by) for row in catalog.versions("nav2d")] == [
        (1, "a", "me"), (2, "b", "me"), (3, "c", "me"),
    ]  # fmt: skip
    assert [row.name for row in catalog.versions()] == ["nav2d"] * 3 + ["other"]
    catalog.put(bundle("a"))  # written again: keeps its version
    assert catalog.named("nav2d", "1").digest == "a"


def test_a_name_belongs_to_one_system_and_can_be_asked_for(catalog: Catalog) -> None:
    registered(catalog, "a")
    with pytest.raises(CatalogError, match="field name: nav2d is the name of bundles of nav2d"):
        catalog.register(bundle("b", system="autoscale"), at_us=5, by="me")
    with pytest.raises(CatalogError, match="field name: 'nav@2' cannot"):
        catalog.register(bundle("b", name="nav@2"), at_us=5, by="me")
    assert [row.version for row in catalog.versions()] == [1]


def test_aliases_point_to_one_bundle_and_duties_exclude_each_other(catalog: Catalog) -> None:
    registered(catalog, "a", "b", "c")
    moves = [("a", "champion"), ("a", "best"), ("b", "challenger"), ("b", "champion")]
    for at, (digest, role) in enumerate([*moves, ("c", "challenger"), ("c", "best")]):
        catalog.promote("nav2d", digest, at_us=at, by="ann", role=role, why=f"reason {at}")
    assert catalog.aliases() == {"b": ["champion"], "c": ["best", "challenger"]}
    for ref, digest in {"champion": "b", "best": "c", "challenger": "c", "2": "b"}.items():
        assert catalog.named("nav2d", ref).digest == digest
    history = [(r.role, r.bundle, r.since_us, r.until_us) for r in catalog.releases("nav2d")]
    assert history == [
        ("best", "c", 5, None), ("challenger", "c", 4, None), ("champion", "b", 3, None),
        ("challenger", "b", 2, 3), ("best", "a", 1, 5), ("champion", "a", 0, 3),
    ]  # fmt: skip
    assert {(r.by, r.why) for r in catalog.releases("nav2d")} == {
        ("ann", f"reason {at}") for at in range(6)
    }


def test_an_alias_can_be_taken_away(catalog: Catalog) -> None:
    registered(catalog, "a")
    catalog.promote("nav2d", "a", at_us=1, by="ann", role="best")
    assert catalog.take_alias("nav2d", "best", at_us=2, by="bob", why="it was not").digest == "a"
    assert catalog.aliases() == {}
    (row,) = catalog.releases("nav2d")
    assert (row.until_us, row.ended) == (2, "bob: it was not")
    with pytest.raises(CatalogError, match="nav2d@best: no bundle has this alias"):
        catalog.take_alias("nav2d", "best", at_us=3, by="bob")


@pytest.mark.parametrize("ref", ["9", "best", ""])
def test_what_is_not_there_is_told_with_what_is(catalog: Catalog, ref: str) -> None:
    with pytest.raises(CatalogError, match="no bundle nav2d is registered"):
        catalog.named("nav2d", ref)
    registered(catalog, "a", "b")
    catalog.promote("nav2d", "a", at_us=1, by="me")
    with pytest.raises(CatalogError, match="there are nav2d@1, nav2d@2, nav2d@champion"):
        catalog.named("nav2d", ref)


@pytest.mark.parametrize("alias", ["", "3", "Best", "a b", "a@b", "x" * 41])
def test_an_alias_cannot_be_taken_for_a_version(catalog: Catalog, alias: str) -> None:
    registered(catalog, "a")
    with pytest.raises(CatalogError, match="cannot be an alias"):
        catalog.promote("nav2d", "a", at_us=1, by="me", role=alias)


def test_what_nobody_could_be_told_is_not_written(catalog: Catalog) -> None:
    registered(catalog, "a", "b")
    told: list[str] = []
    catalog.promote("nav2d", "a", at_us=1, by="me", confirm=lambda: told.append("a"))

    def away() -> None:
        raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"):
        catalog.promote("nav2d", "b", at_us=2, by="me", confirm=away)
    assert [row.digest for row in catalog.released("nav2d", "champion")] == ["a"]
    assert len(catalog.releases("nav2d")) == 1
    catalog.promote("nav2d", "a", at_us=3, by="me", confirm=lambda: told.append("a"))
    assert told == ["a", "a"], "said again to whoever may have missed it"
    assert len(catalog.releases("nav2d")) == 1


def test_going_back_goes_to_the_one_before(catalog: Catalog) -> None:
    registered(catalog, "a", "b")
    with pytest.raises(CatalogError, match="no earlier champion"):
        catalog.before("nav2d")
    for at, digest in enumerate("ab"):
        catalog.promote("nav2d", digest, at_us=at, by="me")
    assert catalog.before("nav2d").digest == "a"
    assert catalog.rollback("nav2d", at_us=5, by="me").digest == "a"
    assert catalog.before("nav2d").digest == "b"


def register_many(url: str, worker: int, barrier: Any) -> None:
    catalog = Catalog(url)
    barrier.wait()
    catalog.create()
    for step in range(8):
        catalog.register(bundle(f"{worker}-{step}"), at_us=step, by=str(worker))
        catalog.register(bundle(f"shared-{step}"), at_us=step, by=str(worker))
    catalog.close()


def _no_version_twice(catalog: Catalog, expected: int) -> None:
    rows = catalog.versions("nav2d")
    assert [row.version for row in rows] == list(range(1, expected + 1))
    assert len({row.digest for row in rows}) == expected


def test_processes_that_register_at_once_get_versions_of_their_own(catalog_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=register_many, args=(catalog_url, n, barrier)) for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    catalog = Catalog(catalog_url)
    _no_version_twice(catalog, 2 * 8 + 8)
    catalog.close()


def test_threads_that_share_a_catalog_do_too(catalog: Catalog) -> None:
    def work(number: int) -> None:
        for step in range(6):
            catalog.register(bundle(f"{number}-{step}"), at_us=step, by=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    _no_version_twice(catalog, 24)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["champion", "challenger", "candidate", "best", ""])
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_whatever_is_done_aliases_are_where_they_were_last_put(
    steps: list[tuple[str, str]],
) -> None:
    """A model of it in a few lines: alias → bundles."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.sqlite")
        catalog.create()
        _against_the_model(catalog, steps)
        catalog.close()


def _against_the_model(catalog: Catalog, steps: list[tuple[str, str]]) -> None:
    numbers: dict[str, int] = {}
    wanted: dict[str, set[str]] = {}
    duties = {"champion", "challenger", "candidate"}
    for at, (digest, alias) in enumerate(steps):
        numbers.setdefault(digest, len(numbers) + 1)
        assert catalog.register(bundle(digest), at_us=at, by="me") == numbers[digest]
        if not alias:
            continue
        catalog.promote("nav2d", digest, at_us=at, by="me", role=alias)
        for other in duties if alias in duties else ():
            wanted.get(other, set()).discard(digest)
        wanted[alias] = {digest} | (wanted.get(alias, set()) if alias == "candidate" else set())
    found = {(alias, digest) for digest, aliases in catalog.aliases().items() for alias in aliases}
    assert found == {(alias, digest) for alias, at in wanted.items() for digest in at}
