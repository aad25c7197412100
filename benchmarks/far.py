"""What far ends of multiprocessing, pyzmq and mpi4py run: each function makes its end of the line, and runs the task of
that name."""

import tasks


class Line:
    """One end of a line between near end and far end, as tasks.py uses it."""

    def __init__(self, receive, send, receive_bytes=None, send_bytes=None):
        self.receive, self.send = receive, send
        self.receive_bytes, self.send_bytes = receive_bytes or receive, send_bytes or send


def same(item):
    return item


def of_pipe(connection):
    return Line(connection.recv, connection.send, connection.recv_bytes, connection.send_bytes)


def serve_pipe(name, connection):
    try:
        getattr(tasks, name)(of_pipe(connection))
    except EOFError:
        pass


def of_zmq(socket):
    return Line(
        socket.recv_pyobj,
        socket.send_pyobj,
        lambda: socket.recv(copy=False).buffer,
        lambda data: socket.send(data, copy=False),
    )


def serve_zmq(name, address):
    import zmq

    socket = zmq.Context.instance().socket(zmq.PAIR)
    socket.connect(address)
    getattr(tasks, name)(of_zmq(socket))
    socket.close()


def of_mpi(comm, other):
    from mpi4py import MPI

    def receive_bytes():
        status = MPI.Status()
        comm.Probe(source=other, tag=1, status=status)
        data = bytearray(status.Get_count(MPI.BYTE))
        comm.Recv([data, MPI.BYTE], source=other, tag=1)
        return data

    return Line(
        lambda: comm.recv(source=other, tag=0),
        lambda item: comm.send(item, dest=other, tag=0),
        receive_bytes,
        lambda data: comm.Send([data, MPI.BYTE], dest=other, tag=1),
    )


def serve_mpi(comm):
    """Run the tasks that rank 0 names, one after the other."""
    while (name := comm.recv(source=0, tag=2)) is not None:
        getattr(tasks, name)(of_mpi(comm, 0))
