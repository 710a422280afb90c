"""`python` and `jaxvae` as a shell finds them, whose processes begin with their libraries imported."""

import contextlib
import os
import shlex
import socketserver
import sys
import tempfile
import threading
from pathlib import Path

from tests.helpers import warm_start

# Hands its streams, arguments, folder and variables to whoever listens, passes signals on to the
# process that comes of it, and ends as that does.
_PROGRAM = """import json, os, signal, socket, sys
passed_on = {{signal.SIGTERM, signal.SIGINT, signal.SIGHUP}}
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # until the process is known
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    asked = json.dumps([{first!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(connection, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(asked)
    answers = connection.makefile()
    process = int(answers.readline())
    for number in passed_on:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(process, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    code = int(answers.readline())
sys.exit(code if code >= 0 else 128 - code)
"""


class _Start(socketserver.BaseRequestHandler):
    """Starts what a program was called for, with its streams; says its number and exit code."""

    def handle(self):
        (arguments, folder, variables), streams = warm_start.receive_request(self.request)
        # Programs that it starts, or looks for, are those behind these.
        places = variables["PATH"].split(os.pathsep)
        own = str(self.server.folder)
        variables["PATH"] = os.pathsep.join([*(each for each in places if each != own), own])
        names = dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))
        try:
            process = warm_start.Popen(
                [sys.executable, *arguments], cwd=folder, env=variables, **names
            )
        finally:
            for stream in streams:
                os.close(stream)
        self.request.sendall(f"{process.pid}\n".encode())
        self.request.sendall(f"{process.wait()}\n".encode())


@contextlib.contextmanager
def programs(folder: Path):
    """Puts both programs into a folder; they work until this ends."""
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory())  # an address has 100 characters
        address = os.path.join(short, "starts")
        server = stack.enter_context(socketserver.ThreadingUnixStreamServer(address, _Start))
        server.folder = folder
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, first in {"python": [], "jaxvae": ["-m", "jaxvae"]}.items():
            program = folder / name
            content = _PROGRAM.format(address=address, first=first)
            # A path with spaces can't stand behind #!.
            program.write_text(
                f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS -c {shlex.quote(content)} "$@"\n'
            )
            program.chmod(0o755)
        try:
            yield
        finally:
            server.shutdown()
