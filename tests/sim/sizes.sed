# The core's sizes, made smaller for the simulation: so a message is long, a buffer full and a limit reached within a few
# hundred bytes. What the core does at them is the same.
s/XC_LONG_MIN = 1024 \* 1024,/XC_LONG_MIN = 1500,/
s/XC_PIECE_SIZE = 512 \* 1024,/XC_PIECE_SIZE = 600,/
s/XC_LONG_COUNT = 64,/XC_LONG_COUNT = 2,/
s/XC_BIG = 256 \* 1024 }/XC_BIG = 500 }/
s/XC_CARRIED_MAX = 65536 }/XC_CARRIED_MAX = 8 }/
s/XC_RELAY_PIECE = 48 \* 1024 }/XC_RELAY_PIECE = 200 }/
s/XC_RELAY_WINDOW = 1024 \* 1024 }/XC_RELAY_WINDOW = 1500 }/
s/XC_INBUF = 64 \* 1024 }/XC_INBUF = 300 }/
s/XC_WRITER_MUCH = 256 \* 1024 }/XC_WRITER_MUCH = 800 }/
s/ANSWERS_MAX = 1024 \* 1024,/ANSWERS_MAX = 600,/
