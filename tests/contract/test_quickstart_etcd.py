"""The users of the quickstart's etcd, by the script of deploy/ against a real one."""

import json
import runpy
from pathlib import Path

import pytest

from tests.support.etcd import running_etcd
from tests.support.stand import ROOT

SCRIPT = runpy.run_path(str(ROOT / "deploy/quickstart/set_etcd_users.py"))
CONNECTION = json.loads((ROOT / "deploy/quickstart/etcd-connection.json").read_text())
MESH = ("--user", f"{CONNECTION['userid']}:{CONNECTION['password']}")
NOBODY = "user name is empty"
WITHIN, BESIDE = "wml-serving/x", "wml-serving-2/x"


def test_mesh_alone_gets_in_below_its_prefix_alone_and_again_is_nothing_new(tmp_path: Path):
    with running_etcd(tmp_path) as etcd:
        for _ in range(2):
            SCRIPT["set_users"](etcd.endpoint, CONNECTION, "of-root")
            etcd.ctl(*MESH, "put", WITHIN, "1")
            assert "1" in etcd.ctl(*MESH, "get", WITHIN)
            for refused in ((*MESH, "get", BESIDE), (*MESH, "put", BESIDE, "1")):
                with pytest.raises(AssertionError, match="permission denied"):
                    etcd.ctl(*refused)
            with pytest.raises(AssertionError, match=NOBODY):
                etcd.ctl("get", WITHIN)
        etcd.kill()
        etcd.start()
        with pytest.raises(AssertionError, match=NOBODY):
            etcd.ctl("get", WITHIN)


def test_password_that_was_changed_is_the_one_from_then_on(tmp_path: Path):
    with running_etcd(tmp_path) as etcd:
        SCRIPT["set_users"](etcd.endpoint, CONNECTION, "of-root")
        SCRIPT["set_users"](etcd.endpoint, CONNECTION | {"password": "another"}, "of-root")
        etcd.ctl("--user", f"{CONNECTION['userid']}:another", "get", WITHIN)
        with pytest.raises(AssertionError, match="authentication failed"):
            etcd.ctl(*MESH, "get", WITHIN)


def test_another_root_password_than_the_first_is_refused(tmp_path: Path):
    with running_etcd(tmp_path) as etcd:
        SCRIPT["set_users"](etcd.endpoint, CONNECTION, "of-root")
        with pytest.raises(SCRIPT["Refused"], match="authenticate"):
            SCRIPT["set_users"](etcd.endpoint, CONNECTION, "another")
