from datastore.shim.backends.api import Lease
from datastore.shim.mvcc.leases import Lessor


def lessor(*leases, now=None):
    made = Lessor()
    for lease, ttl in leases:
        made.grant(lease, ttl)
        if now is not None:
            made.renew(lease, now)
    return made


def test_a_lease_without_a_deadline_never_expires():
    leases = lessor((1, 10))
    assert leases.overdue(1e12, 10) == []
    assert leases.remaining(1, 1e12) == 10.0


def test_a_lease_expires_when_its_ttl_has_passed_and_not_before():
    leases = lessor((1, 10), now=100.0)
    assert leases.overdue(109.9, 10) == []
    assert leases.overdue(110.0, 10) == [1]


def test_renewing_gives_the_full_ttl_again():
    leases = lessor((1, 10), now=100.0)
    assert leases.renew(1, 105.0) == 10
    assert leases.overdue(114.9, 10) == []
    assert leases.remaining(1, 105.0) == 10.0
    assert leases.overdue(115.0, 10) == [1]


def test_a_lease_past_its_deadline_cannot_be_renewed_even_if_nobody_has_looked_yet():
    leases = lessor((1, 10), now=0.0)
    assert leases.renew(1, 10.0) is None
    assert leases.renew(2, 0.0) is None


def test_an_overdue_lease_is_told_until_it_is_dropped():
    leases = lessor((1, 10), (2, 10), (3, 10), now=0.0)
    assert leases.overdue(10.0, 2) == [1, 2]
    assert leases.overdue(10.0, 2) == [1, 2]
    leases.drop(1)
    assert leases.overdue(10.0, 2) == [2, 3]
    assert leases.renew(2, 10.0) is None
    assert leases.remaining(2, 0.0) == 0.0


def test_the_oldest_deadline_comes_first():
    leases = lessor((1, 30), (2, 10), (3, 20), now=0.0)
    leases.grant(4, 5)
    assert leases.ids() == [2, 3, 1, 4]
    assert leases.overdue(30.0, 10) == [2, 3, 1]


def test_a_lease_granted_again_under_its_id_has_its_own_deadline():
    leases = lessor((1, 10), now=0.0)
    leases.drop(1)
    leases.grant(1, 60)
    assert leases.overdue(20.0, 10) == []
    leases.renew(1, 20.0)
    assert leases.overdue(79.0, 10) == []
    assert leases.overdue(80.0, 10) == [1]


def test_promoting_gives_full_ttls_but_revives_nothing():
    leases = Lessor([Lease(1, 10, None, expired=False), Lease(2, 10, None, expired=True)])
    leases.grant(3, 50)
    leases.renew(3, 0.0)
    leases.promote(100.0)
    assert leases.overdue(100.0, 10) == [2]
    assert leases.remaining(1, 100.0) == 10.0
    assert leases.remaining(3, 100.0) == 50.0
    assert leases.overdue(110.0, 10) == [2, 1]


def test_promoting_never_shortens():
    leases = lessor((1, 10), now=100.0)
    leases.promote(50.0)
    assert leases.remaining(1, 50.0) == 60.0


def test_a_lease_marked_by_the_database_is_expired():
    leases = lessor((1, 10), now=0.0)
    leases.mark_expired([1, 2])
    assert leases.renew(1, 1.0) is None
    assert leases.remaining(1, 1.0) == 0.0


def test_unknown_leases_are_ignored_or_none():
    leases = lessor()
    leases.attach(1, b"k")
    leases.detach(1, b"k")
    leases.drop(1)
    assert leases.find(1) is None
    assert leases.remaining(1, 0.0) is None
    assert 1 not in leases
    assert len(leases) == 0


def test_keys_are_attached_and_detached():
    leases = lessor((-1, 10))
    leases.attach(-1, b"a")
    leases.attach(-1, b"b")
    leases.detach(-1, b"a")
    info = leases.find(-1)
    assert info.keys == {b"b"}
    assert repr(info) == "LeaseInfo(-1, ttl=10, keys=1)"
