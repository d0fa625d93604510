"""Whether an etcd is the one of before, from what its answers say."""

from mesh.registry.etcd_history import History
from mesh.wire.pb import etcd_pb2 as pb

OLD, NEW = b"old", b"new"


def answered(history: History, revision: int, mark: bytes) -> str:
    """The id of the store after an answer at that revision, with that mark."""
    header = pb.ResponseHeader(cluster_id=7, revision=revision, raft_term=2)
    history.take(history.known, header)
    return history.store_id(mark)


def test_store_that_goes_on_keeps_its_id():
    history = History()
    assert answered(history, 10, OLD) == answered(history, 11, OLD)


def test_wiped_store_has_one_id_for_who_saw_the_one_before_and_who_did_not():
    old_node, new_node = History(), History()
    before = answered(old_node, 10, OLD)
    after = answered(old_node, 3, NEW)
    assert after == answered(new_node, 4, NEW) != before
    assert answered(old_node, 1, b"newest") == answered(new_node, 2, b"newest") != after


def test_restored_store_has_another_id_for_who_saw_it_go_back():
    history = History()
    before = answered(history, 10, OLD)
    after = answered(history, 3, OLD)
    assert after != before
    assert answered(history, 11, OLD) == after


def test_late_answer_of_a_store_that_was_wiped_is_not_of_the_store_before_it():
    history = History()
    before = answered(history, 10, OLD)
    after = answered(history, 3, NEW)
    assert history.store_id(OLD) not in (before, after)
    assert history.store_id(NEW) == after
