"""What a far end of mitogen runs. mitogen fetches this module from the near end."""

import far
import mitogen.core
import tasks


def line_of(receiver, sender):
    return far.Line(
        lambda: receiver.get().unpickle(),
        sender.send,
        None,
        lambda data: sender.send(mitogen.core.Blob(data)),
    )


@mitogen.core.takes_router
def serve(name, sender, router):
    receiver = mitogen.core.Receiver(router)
    sender.send(receiver.to_sender())
    getattr(tasks, name)(line_of(receiver, sender))
