"""One measurement of one peer, in a process of its own:

    python measure.py WORK PEER [SETTING]

prints a JSON object: a number for each of the work's lines in the report, or {"missing": why} if the peer, or something
that the work needs, is not installed. SETTING has the arguments of `base.Setting` as JSON. Nothing is imported at the top
of this module, because each process that multiprocessing starts imports it first.
"""


def measure(work, name, setting):
    from base import Missing

    try:
        if name in work.floors:
            return work.floors[name](setting)
        peer = work.peers[name](setting)
        found = {**work.function(peer, setting), "version": peer.version()}
        getattr(peer, "leave", bool)()
        return found
    except (ImportError, Missing) as error:
        return {"missing": str(error)}


def main(work, name, setting="{}"):
    import json

    from base import Setting
    from works import WORKS

    print(json.dumps(measure(WORKS[work], name, Setting(**json.loads(setting)))))


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
