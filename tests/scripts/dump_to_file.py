import execnet
import io

stream = io.BytesIO()
execnet.dump(stream, {"key": [1, 2.5, "three", b"four", None]})
data = stream.getvalue()
print(len(data), data == execnet.dumps({"key": [1, 2.5, "three", b"four", None]}))
stream.seek(0)
print(execnet.load(stream))
