"""What the processes of this machine are doing."""

import psutil


def descendants(pid):
    """Return the processes that a process has started, and those that they have."""
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def runs(pid):
    """Return whether a process runs; one that has ended, and waits for its parent to notice, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listeners(pids):
    """Return the local addresses on which processes listen."""
    return [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    ]
