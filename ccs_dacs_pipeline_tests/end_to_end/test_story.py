"""Both syncs from end to end: a real sandbox over HTTP, real files, a real inbox, Dagster runs in this process."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import timedelta
from itertools import islice
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline.ledger import life
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, store
from ccs_dacs_pipeline.ledger.contents import tally_of
from ccs_dacs_pipeline.ledger.life import BatchStateError
from ccs_dacs_pipeline.ledger.schema import batch_entities
from ccs_dacs_pipeline.partitions import SyncBatch
from ccs_dacs_pipeline.sandbox import BusinessError
from ccs_dacs_pipeline.sandbox.oddities import items
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline_tests.conftest import WAIT


def uploaded(world) -> list[str]:
    return sorted(path.name for path in Path(world.settings.folder("upload")).iterdir() if path.is_file())


def a_person(world) -> str:
    return next(iter(world.sandbox.ccs.records("person")))[0]


class TestInitial:
    """sync-lifecycle.md, Initial synchronization."""

    def test_brings_every_entity_to_dacs(self, world):
        world.initial()
        world.assert_quiet()
        compared = world.sandbox.compare()
        assert all(one.held_equal == one.expected > 0 for one in compared.values())

    def test_publishes_shards_as_a_whole_with_one_manifest(self, world):
        figures = world.initial(shards=3)
        world.assert_quiet()
        assert [line["key"] for line in figures["batches"]] == [f"initial-1-0{n}of03" for n in (1, 2, 3)]
        names = uploaded(world)
        assert [name for name in names if name.startswith("MANIFEST")] == ["MANIFEST_initial-1_00.json"]
        assert {name for name in names if name.startswith("C1-DCTIL")} == {
            f"C1-DCTIL_0001_00_T0{n}.csv" for n in (1, 2, 3)
        }
        manifest = json.loads((Path(world.settings.folder("upload")) / "MANIFEST_initial-1_00.json").read_text())
        assert manifest["batch"] == "initial-1"
        assert [file["entity"] for file in manifest["files"]] == (
            ["contact"] * 3 + ["metered_service_point"] * 3 + ["metered_service"] * 3
        )

    def test_sends_zip_files_in_parts_where_the_template_asks_for_them(self, make_world):
        template = "{batchCode}_{batchNumber}_{rerunNumber}.csv.zip"
        world = make_world(
            sandbox={"file_name_template": template},
            settings={"file_name_template": template, "max_file_bytes": 2048},
        )
        world.initial(shards=2)
        world.sandbox.ccs.change(5)
        world.sync()
        world.assert_quiet()
        assert {"C1-DCTIL_0001_00_T01_P001.csv.zip", "C1-DCTIL_0001_00_T02_P001.csv.zip"} <= set(uploaded(world))
        folder = Path(world.settings.folder("upload"))
        manifest = json.loads((folder / "MANIFEST_initial-1_00.json").read_text())
        for file in manifest["files"]:
            data = (folder / file["name"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
            with zipfile.ZipFile(folder / file["name"]) as container:
                assert container.read(file["name"].removesuffix(".zip")).count(b"\n") == file["rows"]

    def test_counts_the_references_to_parents_that_it_quarantines(self, world):
        """record-layouts.md, File dialect: a reference that is not known is sent as it is, and counted."""
        agreement = next(iter(world.sandbox.ccs.records("service_agreement")))[0]
        record = world.sandbox.ccs.get("service_agreement", agreement)
        (link, *_) = items(record["servicePoints"])
        record["servicePoints"] = [link | {"startDateTime": "2020-01-01T00:00:00Z", "stopDateTime": None}]
        world.sandbox.ccs.edit("service_agreement", agreement, lambda one: one.update(record))
        world.sandbox.ccs.edit(
            "service_point", link["servicePointId"].strip(), lambda one: one.update(sourceStatus="X ")
        )
        world.worker.initial(shards=1, new=False, wait=WAIT)
        with world.site.ledger.read() as db:
            figures = tally_of(db, SyncBatch.parse("initial-1-01of01"), "metered_service")
        assert figures.unknown_references["External SP Id"] >= 1

    def test_leaves_no_source_in_the_extract_folder(self, world):
        world.initial()
        assert list(Path(world.settings.folder("extract")).glob("*")) == []

    def test_a_second_one_has_the_next_batch_number(self, world):
        world.initial()
        world.initial()
        assert "C1-DCTIL_0002_00.csv" in uploaded(world)
        world.assert_quiet()

    @pytest.mark.parametrize(
        ("sandbox", "settings"),
        [
            ({"plural_style": "list"}, {}),
            ({"envelope": True}, {}),
            ({"auth": "none"}, {"ccs_auth": "none"}),
            ({"layout": "core"}, {"layout_profile": "core"}),
            (
                {"datetime_format": "xsd", "time_zone": "America/Los_Angeles"},
                {"datetime_format": "xsd", "base_time_zone": "America/Los_Angeles"},
            ),
            ({"page_cap": 7}, {}),
            ({"awkward_share": 0.5}, {}),
        ],
        ids=["plain lists", "outer element", "no authentication", "core layout", "xsd dates", "small pages", "awkward"],
    )
    def test_whatever_shape_ccs_gives(self, make_world, sandbox, settings):
        world = make_world(sandbox=sandbox, settings=settings)
        world.initial()
        world.sandbox.ccs.change(15, seed=2)
        world.sync()
        world.assert_quiet()

    def test_with_oauth(self, make_world):
        world = make_world(
            sandbox={"auth": "oauth"},
            settings={
                "ccs_auth": "oauth",
                "ccs_token_url": "http://127.0.0.1:1/unused",
                "ccs_client_id": "sandbox",
                "ccs_client_secret": "sandbox",
            },
        )
        world.site.settings = load_settings(
            **world.settings.model_dump() | {"ccs_token_url": f"{world.sandbox.base_url}/oauth/token"}
        )
        world.initial()
        world.sandbox.expire_tokens()
        world.sandbox.ccs.change(5)
        world.sync()
        world.assert_quiet()

    def test_eligibility_is_counted_by_reason(self, make_world):
        world = make_world(settings={"eligible_person_types": "P"})
        world.worker.initial(shards=1, new=False, wait=5)
        contact = world.reconcile()["entities"][0]
        people = sum(
            b'"personOrBusiness":"P' in text.replace(b" ", b"") for _, text in world.sandbox.ccs.records("person")
        )
        assert contact["eligible"] == contact["written"] == people < 60

    def test_splits_files_on_record_boundaries(self, make_world):
        world = make_world(settings={"max_file_bytes": 2048})
        world.initial()
        world.assert_quiet()
        parts = [name for name in uploaded(world) if name.startswith("C1-DCTIL")]
        assert parts[0] == "C1-DCTIL_0001_00_P001.csv"
        assert len(parts) > 1
        assert all((Path(world.settings.folder("upload")) / name).stat().st_size <= 2048 for name in parts)


class TestIncremental:
    """sync-lifecycle.md, Incremental synchronization."""

    def test_changes_arrive_and_every_request_is_answered(self, world):
        world.initial()
        world.sandbox.ccs.change(25, seed=3)
        figures = world.sync()
        world.assert_quiet()
        assert [line["key"] for line in figures["batches"]] == ["delta-1"]
        assert set(world.request_states()) == {"SYNCHRONIZED"}

    def test_negative_answers_reach_ccs(self, make_world):
        world = make_world(sandbox={"negative_share": 0.3})
        world.initial()
        world.sandbox.ccs.change(30, seed=3)
        world.sync()
        world.assert_quiet()
        lines = world.reconcile()["entities"]
        states = world.request_states()
        assert states["ERROR"] == sum(line["acknowledgedNo"] for line in lines) > 0
        assert states["SYNCHRONIZED"] == sum(line["acknowledgedYes"] for line in lines) > 0

    def test_nothing_pending_is_a_success(self, world):
        assert world.worker.sync(wait=5) == {"batches": [], "held": None}

    def test_discarded_requests_leave_the_batch(self, make_world):
        world = make_world(sandbox={"discard_share": 0.4})
        world.initial()
        world.sandbox.ccs.change(30, seed=4)
        world.sync()
        discarded = world.request_states()["DISCARDED"]
        assert discarded > 0
        assert world.status()["requests"]["discarded"] == discarded
        assert world.reconcile()["holds"]
        assert not world.sandbox.dacs.violations

    def test_all_requests_of_one_entity_go_as_one_row(self, world):
        world.initial()
        person = a_person(world)
        ids = [world.sandbox.ccs.touch("person", person, another=True) for _ in range(5)]
        world.sync()
        world.assert_quiet()
        assert world.request_states() == {"SYNCHRONIZED": len(set(ids))}
        outcomes = world.status()["requests"]
        assert outcomes == {"positive": 5}
        assert world.reconcile()["entities"][0]["acknowledgedYes"] == 1

    def test_an_entity_that_is_gone_is_answered_with_an_error(self, world):
        world.initial()
        person = a_person(world)
        request = world.sandbox.ccs.touch("person", person)
        world.sandbox.ccs.delete("person", person)
        world.sync()
        found = world.sandbox.ccs.sync_request(request)
        assert found.bo_status == "ERROR"
        assert "gone:" in str(found)

    def test_a_bad_record_is_answered_with_its_rule_and_the_rest_goes_on(self, world):
        world.initial()
        person = a_person(world)
        request = world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))
        world.sandbox.ccs.change(10, seed=5)
        world.sync()
        world.assert_quiet()
        assert "unlisted-code" in str(world.sandbox.ccs.sync_request(request))
        assert [one["rule"] for one in world.status()["quarantined"]] == ["unlisted-code"]
        world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="P "))
        world.sync()
        world.assert_quiet()
        assert world.status()["quarantined"] == []

    def test_without_acknowledgements_delivery_settles(self, make_world):
        world = make_world(sandbox={"inbox_url": None}, settings={"acknowledgements": "none"})
        world.initial()
        world.sandbox.ccs.change(10)
        world.sync()
        world.assert_quiet()
        assert set(world.status()["requests"]) == {"on_delivery"}

    def test_where_ccs_expects_no_acknowledgement_delivery_settles_without_a_call(self, make_world):
        world = make_world(sandbox={"expects_acknowledgement": False})
        world.initial()
        world.sandbox.ccs.change(10)
        world.sync()
        world.assert_quiet()
        assert set(world.status()["requests"]) == {"on_delivery"}
        assert world.status()["acknowledgements"]["delivered"] == 0

    def test_many_requests_go_in_several_batches_of_one_pass(self, make_world):
        world = make_world(settings={"delta_max_requests": 10})
        world.initial()
        world.sandbox.ccs.change(35, seed=6)
        figures = world.sync()
        world.assert_quiet()
        rows = [line["rows"] for line in figures["batches"]]
        assert len(rows) >= 3
        assert max(rows) <= 10


class TestGate:
    """sync-lifecycle.md, Snapshot and deltas agree."""

    def test_a_snapshot_holds_deltas_until_it_is_delivered(self, world):
        start.start_snapshot(world.site, 1, 2)
        world.sandbox.ccs.change(5)
        assert world.worker.sync(wait=5)["held"] == "initial-1"
        assert world.status()["gate"] == {"open": False, "heldBy": "initial-1"}
        world.initial()
        world.sync()
        world.assert_quiet()

    def test_aborting_the_snapshot_opens_it(self, world):
        start.start_snapshot(world.site, 1, 1)
        world.worker.abort("initial-1", wait=5)
        assert world.status()["gate"]["open"]
        with pytest.raises(BatchStateError, match="nothing to resume"):
            world.worker.resume("initial-1", wait=5)

    def test_a_new_snapshot_takes_the_place_of_an_unfinished_one_and_leaves_no_file_of_it(self, world, tmp_path):
        (tmp_path / "no-folder").write_text("")
        world.site.upload = LocalFolder(tmp_path / "no-folder" / "upload")
        with pytest.raises(Problem, match="no-folder"):
            world.worker.initial(shards=1, new=False, wait=5)
        del world.site.upload
        world.worker.initial(shards=1, new=True, wait=5)
        assert [line["state"] for line in world.status()["batches"]] == ["aborted", "settled"]
        assert list(Path(world.settings.folder("extract")).glob("*")) == []
        assert {name for name in uploaded(world) if "DCT" in name} == {"C1-DCTIL_0002_00.csv"}


class TestOperator:
    """What an operator can do with batches (interface.md, Commands)."""

    def break_interface(self, world) -> None:
        for person, _ in list(world.sandbox.ccs.records("person"))[:30]:
            world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))

    def mend_interface(self, world) -> None:
        for person, _ in list(world.sandbox.ccs.records("person"))[:30]:
            world.sandbox.ccs.edit("person", person, lambda one: one.update(personOrBusiness="P "))

    def test_the_breaker_stops_a_delta_before_anything_is_published_and_a_resume_delivers_it(self, world):
        world.initial()
        before = uploaded(world)
        self.break_interface(world)
        with pytest.raises(Problem, match=r"30 of 30 person records are bad.*unlisted-code"):
            world.worker.sync(wait=5)
        assert uploaded(world) == before
        assert world.status()["batches"][-1]["state"] == "stopped"
        self.mend_interface(world)
        world.worker.resume("delta-1", wait=5)
        world.sync()
        world.sandbox.dacs.wait_until_idle()
        world.sync()
        world.assert_quiet()

    def test_an_unfinished_batch_that_fails_again_keeps_new_changes_from_nothing(self, world):
        world.initial()
        world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        world.sandbox.dacs.wait_until_idle()
        with world.site.ledger.write() as db:
            life.replay(db, "delta-1")
        world.site.frames.delete("delta-1")  # lost: no attempt at the replay can succeed
        world.sandbox.ccs.change(5)
        with pytest.raises(Problem, match="delta-1 failed"):
            world.worker.sync(wait=5)
        world.sandbox.dacs.wait_until_idle()
        assert not world.sandbox.ccs.summary()["sync_requests"]["PENDING"]
        world.worker.abort("delta-1", wait=5)
        world.sync()
        world.assert_quiet()

    def test_a_new_batch_that_fails_too_does_not_hide_the_one_before(self, world):
        world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        with world.site.ledger.write() as db:
            life.replay(db, "delta-1")
        world.site.frames.delete("delta-1")  # lost: no attempt at the replay can succeed
        self.break_interface(world)
        with pytest.raises(Problem, match=r"delta-1 failed: .*; delta-2 failed: 30 of 30 person records are bad"):
            world.worker.sync(wait=5)

    def test_an_abort_answers_the_requests_and_frees_the_entities(self, world):
        world.initial()
        self.break_interface(world)
        with pytest.raises(Problem):
            world.worker.sync(wait=5)
        world.worker.abort("delta-1", wait=5)
        assert world.request_states() == {"ERROR": 30}
        self.mend_interface(world)
        world.sync()
        world.assert_quiet()

    def test_a_resync_of_what_a_stopped_batch_holds_says_that_it_goes_on_by_an_operator_alone(self, world):
        self.break_interface(world)
        with pytest.raises(Problem, match="30 of 30"):
            world.worker.sync(wait=5)
        with pytest.raises(BatchStateError, match=r"`ccs-dacs batch list`.*one that is stopped .* resume or abort"):
            world.worker.resync("contact", [a_person(world)], wait=5)

    def test_a_snapshot_that_the_breaker_stopped_is_resumed_with_the_same_names(self, world):
        self.break_interface(world)
        with pytest.raises(Problem, match="ccs-dacs batch resume initial-1"):
            world.worker.initial(shards=1, new=False, wait=5)
        with pytest.raises(BatchStateError, match="is stopped"):
            world.worker.initial(shards=1, new=False, wait=5)
        self.mend_interface(world)
        world.worker.resume("initial-1", wait=5)
        assert "C1-DCTIL_0001_00.csv" in uploaded(world)
        world.sync()
        world.assert_quiet()

    def test_a_replay_sends_the_same_rows_under_new_names(self, world):
        world.initial()
        world.sandbox.ccs.change(8)
        world.sync()
        world.worker.replay("delta-1", wait=5)
        world.sandbox.dacs.wait_until_idle()
        world.worker.deliver_acknowledgements(wait=5)
        folder = Path(world.settings.folder("upload"))
        assert (folder / "C1-DCTEX_0001_00.csv").read_bytes() == (folder / "C1-DCTEX_0001_01.csv").read_bytes()
        assert (folder / "MANIFEST_delta-1_01.json").exists()
        world.assert_quiet()
        with pytest.raises(BatchStateError, match="old data over new"):
            world.worker.replay("initial-1", wait=5)

    def test_a_resync_sends_chosen_entities_without_a_request(self, world):
        world.initial()
        ids = [person for person, _ in list(world.sandbox.ccs.records("person"))[:3]]
        figures = world.worker.resync("contact", ids, wait=5)
        world.sandbox.dacs.wait_until_idle()
        assert figures["batches"][0]["rows"] == 3
        lines = (Path(world.settings.folder("upload")) / "C1-DCTEX_0001_00.csv").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["", "", ""]
        assert all(line.split("\t")[2] == "F1IC" for line in lines)
        world.assert_quiet()

    def test_a_resync_takes_a_key_range(self, world):
        world.initial()
        figures = world.worker.resync("metered_service", ("0000000000", "4999999999"), wait=5)
        expected = sum(one < "5" for one, _ in world.sandbox.ccs.records("service_agreement"))
        assert figures["batches"][0]["rows"] == expected > 0
        world.sandbox.dacs.wait_until_idle()
        world.assert_quiet()


class TestRefused:
    """Requests that CCS will not claim (ccs-rest.md, Sync requests)."""

    @pytest.fixture
    def refusing(self, world, monkeypatch):
        """CCS refuses to transition one of the pending requests, for as long as it is in the set."""
        world.initial()
        ccs, refused = world.sandbox.ccs, set()
        transition = ccs.transition

        def refuse(sync_request_id: str, body: object) -> None:
            if sync_request_id in refused:
                raise BusinessError(1, "Locked", "this sync request is locked by another user")
            transition(sync_request_id, body)

        monkeypatch.setattr(ccs, "transition", refuse)
        refused.add(ccs.touch("person", a_person(world)))
        return refused

    def test_one_lets_the_others_go_on_and_is_shown(self, world, refusing):
        world.sandbox.ccs.change(10, seed=1)
        world.sync()
        (request,) = refusing
        assert world.sandbox.ccs.summary()["sync_requests"]["PENDING"] == 1
        assert [one["syncRequestId"] for one in world.status()["refused"]] == [request]
        assert world.status()["batches"][-1]["state"] == "settled"
        assert world.reconcile()["holds"]

    def test_one_that_leaves_its_state_just_then_is_read_again_by_the_next_pass(self, world, refusing, monkeypatch):
        (request,) = refusing
        search = world.sandbox.ccs.search_requests

        def leave_when_let_go(**filters):
            if filters["ids"] and filters["bo_status"]:
                refusing.clear()
                world.sandbox.ccs.transition(request, {})
            return search(**filters)

        with monkeypatch.context() as leaving:
            leaving.setattr(world.sandbox.ccs, "search_requests", leave_when_let_go)
            with pytest.raises(Problem, match="the batch is resumed by itself"):
                world.worker.sync(wait=5)
        world.sync()
        world.assert_quiet()
        assert world.status()["refused"] == []

    def test_it_is_not_taken_again_as_it_is(self, world, refusing):
        world.sync()
        for _ in range(2):
            assert world.worker.sync(wait=5)["batches"] == []
        assert start.count_pending(world.site) == 0
        world.sandbox.ccs.change(10, seed=1)
        assert [line["key"] for line in world.sync()["batches"]] == ["delta-2"]

    def test_it_is_taken_again_once_its_state_changes(self, world, refusing):
        world.sync()
        (request,) = refusing
        refusing.clear()
        later = world.sandbox.ccs.now() + timedelta(seconds=5)
        world.sandbox.ccs._clock = lambda: later
        world.sandbox.ccs.set_state(request, "PENDING")
        assert start.count_pending(world.site) == 1
        world.sync()
        world.assert_quiet()
        assert world.status()["refused"] == []

    def test_it_is_taken_again_when_an_operator_says_so(self, world, refusing):
        world.sync()
        refusing.clear()
        world.worker.sync(wait=5, refused=True)
        world.sync()
        world.assert_quiet()

    def test_one_that_somebody_ended_is_forgotten_and_hides_nothing(self, world, refusing):
        world.sync()
        (request,) = refusing
        world.sandbox.ccs.set_state(request, "DISCARDED")
        refusing.clear()
        world.sandbox.ccs.touch("person", a_person(world))
        assert start.count_pending(world.site) == 1
        world.sync()
        world.assert_quiet()
        assert world.status()["refused"] == []

    def test_the_older_request_of_an_entity_goes_though_the_newest_is_refused(self, world, refusing):
        world.sandbox.ccs.touch("person", a_person(world), another=True)
        world.sync()
        assert world.status()["requests"] == {"positive": 1}


class TestAnswers:
    """Answers on their way to CCS (ccs-rest.md, Sync requests; sync-lifecycle.md, Acknowledgements)."""

    def test_an_answer_that_ccs_refuses_for_ever_fails_the_pass_and_names_it(self, world, monkeypatch):
        world.initial()
        ccs = world.sandbox.ccs
        request = ccs.touch("person", a_person(world))
        transition = ccs.transition

        def refuse_answers(sync_request_id: str, body: object) -> None:
            if ccs.sync_request(sync_request_id).bo_status == "AWAITINGACK":
                raise BusinessError(1, "Locked", "this sync request is locked by another user")
            transition(sync_request_id, body)

        with monkeypatch.context() as broken:
            broken.setattr(ccs, "transition", refuse_answers)
            world.worker.sync(wait=5)
            world.sandbox.dacs.wait_until_idle()
            with pytest.raises(Problem, match=f"1 answers cannot be told to CCS.*{request}"):
                world.worker.deliver_acknowledgements(wait=5)
        world.worker.deliver_acknowledgements(wait=5)
        world.assert_quiet()

    def test_answers_of_one_batch_that_come_in_several_passes_are_each_reported(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        ccs = world.sandbox.ccs
        requests = [ccs.touch("person", person) for person, _ in islice(ccs.records("person"), 3)]
        world.worker.sync(wait=5)
        for request in requests:
            with world.site.ledger.write() as db:
                store(db, [Acknowledgement(request, has_error=False, payload={"hasError": False})])
            world.worker.deliver_acknowledgements(wait=5)
        assert world.status()["requests"] == {"positive": 3}
        checked = world.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(["upload", "reconciliation"]), "control_equations"), limit=10
        )
        passed = [one.event.asset_check_evaluation.passed for one in checked]
        assert passed == [True] * 4  # the sync's own, and each pass

    def test_a_request_that_somebody_ended_in_ccs_is_closed_and_counted(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        request = world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        world.sandbox.ccs.set_state(request, "CANCELED")
        with world.site.ledger.write() as db:
            store(db, [Acknowledgement(request, has_error=False, payload={"hasError": False})])
        world.worker.deliver_acknowledgements(wait=5)
        assert world.status()["requests"] == {"closed": 1}
        assert world.reconcile()["holds"]

    @pytest.mark.parametrize("state", ["CANCELED", "ERROR"])
    def test_one_that_ccs_ended_is_closed_though_no_answer_ever_comes(self, make_world, state):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers
        request = world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        world.sandbox.ccs.set_state(request, state)
        world.worker.deliver_acknowledgements(wait=5)
        assert world.status()["requests"] == {"closed": 1}
        assert world.status()["batches"][-1]["state"] == "settled"
        assert world.reconcile()["holds"]

    def test_one_that_ccs_begins_anew_before_its_answer_is_sent_again(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        request = world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        world.sandbox.ccs.set_state(request, "PENDING")
        assert [line["key"] for line in world.worker.sync(wait=5)["batches"]] == ["delta-2"]
        assert world.status()["requests"] == {"closed": 1, "awaiting": 1}
        with world.site.ledger.write() as db:
            store(db, [Acknowledgement(request, has_error=False, payload={"hasError": False})])
        world.worker.deliver_acknowledgements(wait=5)
        assert world.status()["requests"] == {"closed": 1, "positive": 1}
        assert world.request_states() == {"SYNCHRONIZED": 1}
        assert world.reconcile()["holds"]

    def test_what_was_coalesced_with_a_closed_request_is_still_answered(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        person = a_person(world)
        requests = [world.sandbox.ccs.touch("person", person, another=True) for _ in range(2)]
        world.worker.sync(wait=5)
        with world.site.ledger.read() as db:
            written = db.execute(sa.select(batch_entities.c.reference)).scalar_one()
        world.sandbox.ccs.set_state(written, "CANCELED")
        world.worker.deliver_acknowledgements(wait=5)
        with world.site.ledger.write() as db:
            store(db, [Acknowledgement(written, has_error=False, payload={"hasError": False})])
        world.worker.deliver_acknowledgements(wait=5)
        (other,) = set(requests) - {written}
        assert world.sandbox.ccs.sync_request(other).bo_status == "SYNCHRONIZED"
        assert world.status()["batches"][-1]["state"] == "settled"
        assert world.reconcile()["holds"]

    def test_what_was_coalesced_with_a_request_that_ccs_begins_anew_is_settled_with_its_new_life(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        person = a_person(world)
        requests = [world.sandbox.ccs.touch("person", person, another=True) for _ in range(3)]
        world.worker.sync(wait=5)
        with world.site.ledger.read() as db:
            written = db.execute(sa.select(batch_entities.c.reference)).scalar_one()
        world.sandbox.ccs.set_state(written, "PENDING")
        world.worker.deliver_acknowledgements(wait=5)  # finds it out by looking, before the pick does
        world.worker.sync(wait=5)
        assert world.request_states() == {"AWAITINGACK": 3}
        with world.site.ledger.write() as db:
            reference = db.execute(
                sa.select(batch_entities.c.reference).where(batch_entities.c.batch == "delta-2")
            ).scalar_one()
            store(db, [Acknowledgement(reference, has_error=False, payload={"hasError": False})])
        world.worker.deliver_acknowledgements(wait=5)
        assert reference in requests
        assert world.request_states() == {"SYNCHRONIZED": 3}
        assert [line["state"] for line in world.status()["batches"]] == ["settled", "settled"]
        assert world.reconcile()["holds"]

    def test_what_was_delivered_while_answers_were_expected_is_settled_by_its_own(self, make_world):
        world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
        request = world.sandbox.ccs.touch("person", a_person(world))
        world.worker.sync(wait=5)
        world.site.settings = load_settings(**world.settings.model_dump() | {"acknowledgements": "none"})
        world.worker.deliver_acknowledgements(wait=5)
        assert world.request_states() == {"AWAITINGACK": 1}  # never settled without a word of DACS
        with world.site.ledger.write() as db:
            store(db, [Acknowledgement(request, has_error=True, payload={"hasError": True})])
        world.worker.deliver_acknowledgements(wait=5)
        assert world.status()["requests"] == {"negative": 1}
        assert world.request_states() == {"ERROR": 1}

    def test_coalesced_requests_without_an_answer_show_as_overdue(self, make_world):
        world = make_world(sandbox={"upload_folder": None}, settings={"ack_timeout": "PT0S"})
        person = a_person(world)
        requests = [world.sandbox.ccs.touch("person", person, another=True) for _ in range(2)]
        world.worker.sync(wait=5)
        assert {one["syncRequestId"] for one in world.status()["overdue"]} == set(requests)
