"""An etcd that someone else runs: nothing to start, everything to check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from datastore.endpoint import ClientTls, Endpoint
from datastore.errors import CertificateError, NotReady
from datastore.launch import ProcessSpec
from datastore.pki import check_pair
from datastore.probe import identify
from datastore.schema import ExternalCluster


@dataclass(frozen=True, slots=True)
class ExternalEtcd:
    """The endpoints and TLS files of somebody's cluster."""

    endpoint: Endpoint
    kind: str = "external etcd"
    shared: bool = True
    binaries: Sequence[str] = ()

    @classmethod
    def from_config(cls, config: ExternalCluster) -> Self:
        """Return the cluster that a configuration names."""
        ca, cert, key = config.ca_file, config.client_cert_file, config.client_key_file
        tls = ClientTls(ca, cert, key) if ca and cert and key else None
        return cls(Endpoint(config.endpoints, tls, config.etcd_prefix))

    @property
    def place(self) -> str:
        """The URLs."""
        return ", ".join(self.endpoint.urls)

    def processes(self) -> Sequence[ProcessSpec]:
        """Return nothing: others run it."""
        return ()

    def prepare(self) -> None:
        """Check that the TLS files exist, fit and are valid; raises CertificateError."""
        if self.endpoint.tls:
            check_pair(self.endpoint.tls.ca, self.endpoint.tls.cert, self.endpoint.tls.key)

    async def check(self) -> None:
        """Return when one of the endpoints answers a linearizable read; raises NotReady."""
        try:
            self.prepare()
            await identify(self.endpoint)
        except CertificateError as error:
            raise NotReady(
                str(error), "give the files that the etcd's operator made for kube-apiserver"
            ) from error
        except NotReady as error:
            raise NotReady(
                f"the external etcd does not answer: {error.reason}",
                error.advice or "check spec.storage.etcd.externalCluster and that it is healthy",
            ) from error
