"""A stand-in for the Python interpreter whose imports are done: a server that forks a process per call.

Importing torch and OpenMMLab takes 4 to 7 CPU seconds, and the tests start the tools more than a
hundred times. `write_interpreter` writes an executable that is called like `python`. It sends its
arguments, environment, folder and standard streams to a server that has imported everything, and the
server forks a process that runs the script in the caller's process group. The exit code, the output
and the effect of signals (SIGKILL too) are those of a real process. If SOCO_WARM_PID is set to a path,
the id of the forked process is written to PATH.n, where n is the id of the calling process.

A call that starts with an option other than -c, -m and -u is run by the real interpreter.
`sys.executable` of a forked process is the executable, so that the processes which a tool starts are
quick as well.
"""
import atexit
import contextlib
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path

CLIENT = """#!{python} -IS
import fcntl, json, os, signal, socket, subprocess, sys, time
arguments = sys.argv[1:]
while arguments[:1] == ['-u']:
    arguments.pop(0)
if not arguments or (arguments[0].startswith('-') and arguments[0] not in ('-c', '-m')):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
def connect():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect({address!r})
    return connection
try:
    connection = connect()
except OSError:
    with open({address!r} + '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection = connect()
        except OSError:
            with open({address!r} + '.log', 'ab') as log:
                server = subprocess.Popen(
                    [{python!r}, {server!r}, {address!r}], stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, process_group=0)
            while True:
                try:
                    connection = connect()
                    break
                except OSError:
                    if server.poll() is not None:
                        sys.exit('the server did not start: see ' + {address!r} + '.log')
                    time.sleep(0.05)
call = json.dumps(dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ),
                       executable=os.path.abspath(__file__), group=os.getpgid(0))).encode()
socket.send_fds(connection, [len(call).to_bytes(4, 'big')], [0, 1, 2])
connection.sendall(call)
stream = connection.makefile()
pid = int(stream.readline())
if os.environ.get('SOCO_WARM_PID'):
    with open(os.environ['SOCO_WARM_PID'] + '.' + str(os.getpid()), 'w') as file:
        file.write(str(pid))
def forward(number, frame):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, forward)
code = int(stream.readline() or -9)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -9 else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def write_interpreter(folder: Path) -> Path:
    """Write bin/python and bin/python3, whose first call starts the server; return the first."""
    programs = folder / 'bin'
    programs.mkdir(parents=True, exist_ok=True)
    for name in ('python', 'python3'):
        (programs / name).write_text(CLIENT.format(
            python=sys.executable, server=str(Path(__file__).resolve()),
            address=str(folder / 'socket')))
        (programs / name).chmod(0o755)
    return programs / 'python'


def stop_server(folder: Path) -> None:
    """End the server of `write_interpreter`, if it was started."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((folder / 'socket.pid').read_text()), signal.SIGTERM)


def serve(address: str) -> None:
    """Answer calls until SIGTERM."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f'{address}.new')
    listener.listen(64)
    Path(f'{address}.pid').write_text(str(os.getpid()))
    os.rename(f'{address}.new', address)  # from here on callers find it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            supervise(connection)
        connection.close()


def supervise(connection: socket.socket) -> None:
    """Fork the process of a call, and send its pid and its exit code; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    content = b''
    while len(content) < int.from_bytes(size, 'big'):
        content += connection.recv(1 << 20)
    call = json.loads(content)
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.close(go)
        os.read(ready, 1)  # until the caller knows the pid, or nobody could signal it
        os.close(ready)
        os._exit(run(call, streams))
    for stream in streams:
        os.close(stream)
    connection.sendall(b'%d\n' % pid)
    os.close(go)
    child = os.pidfd_open(pid)
    found, _, _ = select.select([connection, child], [], [])
    if child not in found:  # the caller was killed
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(b'%d\n' % os.waitstatus_to_exitcode(status))
    os._exit(0)


def run(call: dict, streams: list[int]) -> int:
    """Become the process of a call; return its exit code."""
    try:
        os.setpgid(0, call['group'])
    except PermissionError:  # the caller has a session of its own
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    for number, (name, mode) in enumerate((('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'))):
        buffering = 1 if os.isatty(number) or name == 'stderr' else -1
        stream = open(number, mode, closefd=False, buffering=buffering)  # noqa: SIM115 (stays open)
        setattr(sys, name, stream)
        setattr(sys, f'__{name}__', stream)
    os.chdir(call['folder'])
    os.environ.clear()
    os.environ.update(call['environment'])
    start_over()
    sys.executable = call['executable']
    kind, *arguments = call['arguments']
    folders = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[:0] = [folder for folder in folders if folder]
    code = 0
    try:
        if kind == '-c':
            sys.argv = ['-c', *arguments[1:]]
            sys.path.insert(0, '')
            module = type(sys)('__main__')
            sys.modules['__main__'] = module
            exec(compile(arguments[0], '<string>', 'exec'), vars(module))
        elif kind == '-m':
            sys.argv = ['-m', *arguments[1:]]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)
        else:
            sys.argv = [kind, *arguments]
            sys.path.insert(0, os.path.dirname(os.path.realpath(kind)))
            module = type(sys)('__main__')  # stays after the script, for worker processes that it forks
            module.__file__ = kind
            sys.modules['__main__'] = module
            exec(compile(Path(kind).read_text(encoding='utf-8'), kind, 'exec'), vars(module))
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        code = 1 if error.code is not None and not isinstance(error.code, int) else error.code or 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return code & 0xff


def start_over() -> None:
    """Bring what an interpreter sets when it starts to what the new environment asks for."""
    import multiprocessing

    import numpy
    multiprocessing.set_executable(sys.executable)  # the real one: its descriptors are inherited
    random.seed()
    numpy.random.seed()
    for word in filter(None, os.environ.get('PYTHONWARNINGS', '').split(',')):
        warnings._setoption(word)


def as_it_is(text: str, **style: object) -> tuple[str, bool]:
    """Stand for yapf's `FormatCode`."""
    return text, True


def import_everything() -> None:
    """Import what the tools import."""
    import importlib

    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    for name in ('mmdet.models', 'mmdet.datasets', 'mmdet.evaluation', 'mmselfsup.models',
                 'mmcls.models', 'mmcls.datasets', 'rich.progress', 'rich.table', 'jinja2',
                 'torch.distributed.run', 'matplotlib.backends.backend_agg'):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for path in sorted((root / 'projects/soco').rglob('*.py')):
        names = path.relative_to(root).with_suffix('').parts
        if '.mim' not in names and names[-1] not in ('__main__', 'metrics'):
            importlib.import_module('.'.join(names).removesuffix('.__init__'))
    sys.path.remove(str(root))
    sys.modules['mmengine.config.config'].FormatCode = as_it_is


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    import_everything()
    warnings.resetwarnings()
    sys.path.pop(0)  # this folder
    gc.collect()
    gc.freeze()  # collections of the forked processes leave all this alone
    serve(sys.argv[1])
