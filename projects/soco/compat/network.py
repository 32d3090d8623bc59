"""The network interface of process groups between CPUs (gloo)."""
import fcntl
import fnmatch
import os
import socket
import struct

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def choose_gloo_interface() -> None:
    """Set GLOO_SOCKET_IFNAME, if it is not set, to an interface that all processes can reach.

    Gloo listens on the address of the machine's host name. Debian gives that name the address
    127.0.1.1, and containers may give it none: groups between machines then fail although NCCL works.
    On one machine, the interface is the loopback. On several, it is the one that NCCL_SOCKET_IFNAME
    names, else the one by which MASTER_ADDR is reached, else the first one that NCCL would take. If
    there is none, nothing is set.
    """
    if 'GLOO_SOCKET_IFNAME' in os.environ:
        return
    names = [name for _, name in socket.if_nameindex()]
    if _is_one_machine():
        found = next((name for name in names if name == 'lo'), None)
    else:
        addresses = {name: address for name in names if (address := _address(name))
                     and not address.startswith('127.')}
        found = _named_for_nccl(list(addresses)) or _interface_to_master(addresses)
    if found:
        os.environ['GLOO_SOCKET_IFNAME'] = found


def _is_one_machine() -> bool:
    """Return whether all processes run on this machine, as far as the launcher's variables tell."""
    env = os.environ
    if 'SLURM_PROCID' in env:
        return env.get('SLURM_NNODES', env.get('SLURM_JOB_NUM_NODES')) == '1'
    here = env.get('LOCAL_WORLD_SIZE', env.get('OMPI_COMM_WORLD_LOCAL_SIZE'))
    return here is not None and here == env.get('WORLD_SIZE', env.get('OMPI_COMM_WORLD_SIZE'))


def _address(interface: str) -> str | None:
    """Return the IPv4 address of an interface, None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            found = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack('256s', interface[:15].encode()))
        except OSError:
            return None
    return socket.inet_ntoa(found[20:24])


def _named_for_nccl(names: list[str]) -> str | None:
    """Return the first interface that NCCL_SOCKET_IFNAME asks for, None if it asks for none.

    Its words are prefixes of names, whole names after '=', and what is not meant after '^'.
    """
    told = os.environ.get('NCCL_SOCKET_IFNAME', '')
    if not told or told.startswith('^'):
        return None
    whole = told.startswith('=')
    words = [word if whole else f'{word}*' for word in told.lstrip('=').split(',') if word]
    return next((name for word in words for name in names if fnmatch.fnmatch(name, word)), None)


def _interface_to_master(addresses: dict[str, str]) -> str | None:
    """Return the interface by which MASTER_ADDR is reached, or the first one that NCCL would take.

    Args:
        addresses (dict[str, str]): IPv4 address of each interface but the loopback.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((os.environ.get('MASTER_ADDR', ''), 9))  # sends nothing
            own = sock.getsockname()[0]
        except OSError:
            own = None
    reached = next((name for name, address in addresses.items() if address == own), None)
    virtual = ('docker', 'veth', 'virbr', 'br-')
    real = sorted((name for name in addresses if not name.startswith(virtual)),
                  key=lambda name: not name.startswith('ib'))
    return reached or next(iter(real), None)
