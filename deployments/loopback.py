"""What keeps a cluster on this machine off the network: settings of Ray, and hooks for what Ray has no setting for."""

from typing import Any

HOST = "127.0.0.1"

NODE_ON_LOOPBACK = {
    # The node's address is then 127.0.0.1, from which Ray's servers conclude to listen there only. It is Ray's default
    # on macOS and Windows, hence the name. Without it `--node-ip-address=127.0.0.1` is replaced by the LAN's address,
    # also in whatever connects to the cluster.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Environment of Ray's processes, and of everything that connects to them."""

ENGINES_ON_LOOPBACK = {
    # Engines listen for their own processes only; a machine's name may resolve to an address of its network.
    "VLLM_HOST_IP": HOST,
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Environment of engines on a machine that is a cluster by itself."""

HOOKS = {
    "RAY_START_HOOK": "deployments.loopback.on_ray_start",
    # What `runtime_env={"worker_process_setup_hook": ...}` becomes; set here it holds for every job, Serve's too.
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "deployments.loopback.on_worker_start",
}
"""Environment of `ray start`."""


def on_ray_start(ray_params: Any, head: bool) -> None:
    """Called by `ray start` before it starts anything."""
    # Ray Client runs what it is sent and nothing here uses it; `ray start` has no option to leave it out.
    ray_params.ray_client_server_port = None


def on_worker_start() -> None:
    """Called by each of Ray's worker processes before it is given anything to run."""
    from ray._common import tls_utils

    add_port = tls_utils.add_port_to_grpc_server

    def add_port_on_loopback(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", HOST))

    # A replica's gRPC server, which unpickles what it is sent, listens on `[::]:0` whatever the node's address is.
    # Serve imports the function by name later than this. A test reads the sockets, should a new Ray do it otherwise.
    tls_utils.add_port_to_grpc_server = add_port_on_loopback
