"""What the scripts share: print a result, or the exception instead."""


def show(call, *args, **kwargs):
    try:
        result = call(*args, **kwargs)
    except Exception as error:
        print(type(error).__name__, str(error))
    else:
        print(repr(result))
