/*
 * The opcodes of execnet's serializer. An encoded object is a program for a stack machine; each opcode is one byte,
 * then its operand. Numbers are big-endian.
 *
 * M, S, G and I were written by execnet under Python 2; they are read, never written.
 */
#ifndef XC_OPCODES_H
#define XC_OPCODES_H

enum {
    XC_FORMAT_VERSION = 2, /* the first byte of what dumps() makes; payloads of frames do not have it */
};

typedef enum {
    XC_OP_TUPLE = '@',     /* i4 n: the n topmost objects become a tuple */
    XC_OP_BYTES = 'A',     /* i4 n, n bytes */
    XC_OP_CHANNEL = 'B',   /* i4 id */
    XC_OP_FALSE = 'C',     /* - */
    XC_OP_FLOAT = 'D',     /* IEEE 754 double */
    XC_OP_FROZENSET = 'E', /* i4 n: as TUPLE */
    XC_OP_INT = 'F',       /* i4 */
    XC_OP_LONG = 'G',      /* i4 */
    XC_OP_LONGINT = 'H',   /* i4 n, n bytes: decimal digits */
    XC_OP_LONGLONG = 'I',  /* i4 n, n bytes: decimal digits */
    XC_OP_NEWDICT = 'J',   /* - */
    XC_OP_NEWLIST = 'K',   /* i4 n: a list of n None */
    XC_OP_NONE = 'L',      /* - */
    XC_OP_PY2STR = 'M',    /* i4 n, n bytes */
    XC_OP_STR = 'N',       /* i4 n, n bytes of UTF-8 */
    XC_OP_SET = 'O',       /* i4 n: as TUPLE */
    XC_OP_SETITEM = 'P',   /* -: object, key, value -> object with object[key] = value */
    XC_OP_STOP = 'Q',      /* -: the one object on the stack is the result */
    XC_OP_TRUE = 'R',      /* - */
    XC_OP_UNICODE = 'S',   /* i4 n, n bytes of UTF-8 */
    XC_OP_COMPLEX = 'T',   /* two doubles: real, imaginary */
    /* Ours, for what is longer than an i4 can tell. Only in messages: dumps() and loads() do not have them. */
    XC_OP_HUGE_BYTES = 'U', /* i8 n, n bytes */
    XC_OP_HUGE_STR = 'V',   /* i8 n, n bytes of UTF-8 */
    /* Ours, only in messages, and only as the last one before STOP: a tuple, the one object on the stack, becomes the
     * object that was pickled. The tuple has the channels in it. */
    XC_OP_PICKLE = 'W', /* see xc_pickle.h */
} xc_op;

#endif
