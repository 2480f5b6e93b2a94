"""Values laid out as bytes. See packing.pyi for the contract."""

from operator import index

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLong, PyLong_AsUnsignedLongLong
from cpython.tuple cimport PyTuple_Check
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum:
    UNSIGNED
    SIGNED
    EXACTLY
    SIZED
    TEXT
    FLAG
    OPTIONAL
    SEQUENCE
    RECORD

cdef enum:
    BYTES_AT_FIRST = 512

LENGTH_MAX = 0xFFFFFFFF


cdef struct buffer:
    uint8_t *data
    size_t length
    size_t capacity


cdef uint8_t *more(buffer *out, size_t bytes) except NULL:
    """Where so many more bytes go."""
    cdef size_t wanted = out.capacity if out.capacity > 0 else BYTES_AT_FIRST
    cdef uint8_t *grown
    if out.data == NULL or bytes > out.capacity - out.length:
        while wanted - out.length < bytes:
            wanted *= 2
        grown = <uint8_t *>realloc(out.data, wanted)
        if grown == NULL:
            raise MemoryError(f"no memory for {wanted} bytes")
        out.data = grown
        out.capacity = wanted
    out.length += bytes
    return out.data + out.length - bytes


cdef int put_number(buffer *out, uint64_t number, int width) except -1:
    cdef uint8_t *data = more(out, width)
    cdef int byte
    for byte in range(width):
        data[byte] = <uint8_t>(number >> 8 * byte)
    return 0


cdef class Layout:
    cdef int code
    cdef uint32_t size
    cdef tuple names
    cdef tuple inner

    def __init__(self):
        raise TypeError("layouts are made by the functions of this module")

    def pack(self, value):
        cdef buffer out
        out.data = NULL
        out.length = out.capacity = 0
        try:
            self.put(&out, value)
            return PyBytes_FromStringAndSize(<const char *>out.data, out.length)
        finally:
            free(out.data)

    cdef int put(self, buffer *out, object value) except -1:
        cdef uint64_t number
        cdef long long signed_number
        cdef int spare_bits = 64 - 8 * <int>self.size
        if self.code == UNSIGNED:
            try:
                number = PyLong_AsUnsignedLongLong(index(value))
            except OverflowError as error:
                raise self.too_wide(value) from error
            if number << spare_bits >> spare_bits != number:
                raise self.too_wide(value)
            put_number(out, number, self.size)
        elif self.code == SIGNED:
            try:
                signed_number = PyLong_AsLongLong(index(value))
            except OverflowError as error:
                raise self.too_wide(value) from error
            number = <uint64_t>signed_number
            if <int64_t>(number << spare_bits) >> spare_bits != signed_number:
                raise self.too_wide(value)
            put_number(out, number, self.size)
        elif self.code == FLAG:
            more(out, 1)[0] = 1 if value else 0
        elif self.code == OPTIONAL:
            more(out, 1)[0] = 0 if value is None else 1
            if value is not None:
                (<Layout>self.inner[0]).put(out, value)
        elif self.code == SEQUENCE:
            self.put_sequence(out, value)
        elif self.code == RECORD:
            self.put_record(out, value)
        else:
            self.put_bytes(out, value)
        return 0

    cdef object too_wide(self, object value):
        return ValueError(f"{value} does not fit {self.size} bytes")

    cdef int put_bytes(self, buffer *out, object value) except -1:
        cdef const char *data
        cdef Py_ssize_t length
        if self.code == TEXT:
            data = PyUnicode_AsUTF8AndSize(value, &length)
        else:
            if not PyBytes_Check(value):
                value = bytes(memoryview(value))
            data, length = PyBytes_AS_STRING(value), len(<bytes>value)
        if self.code == EXACTLY:
            if length != self.size:
                raise ValueError(f"expected {self.size} bytes, got {length}")
        else:
            if length > self.size:
                raise ValueError(f"{length} bytes exceed {self.size}")
            put_number(out, length, 4)
        if length > 0:
            memcpy(more(out, length), data, length)
        return 0

    cdef int put_sequence(self, buffer *out, object value) except -1:
        cdef Layout element = self.inner[0]
        if len(value) > self.size:
            raise ValueError(f"{len(value)} elements exceed {self.size}")
        put_number(out, len(value), 4)
        for item in value:
            element.put(out, item)
        return 0

    cdef int put_record(self, buffer *out, object value) except -1:
        cdef Py_ssize_t count = len(self.inner), place
        if not PyTuple_Check(value):
            for place in range(count):
                (<Layout>self.inner[place]).put(out, getattr(value, self.names[place]))
        elif len(<tuple>value) != count:
            raise ValueError(f"{count} fields are needed, got {len(<tuple>value)}")
        else:
            for place in range(count):
                (<Layout>self.inner[place]).put(out, (<tuple>value)[place])
        return 0


cdef Layout made(int code, size, tuple names=(), tuple inner=()):
    cdef Layout layout = Layout.__new__(Layout)
    cdef Layout part
    for part in inner:
        if part is None:
            raise TypeError("a layout is needed, not None")
    if not 0 <= size <= LENGTH_MAX:
        raise ValueError(f"a size is {size}, allowed are 0 to {LENGTH_MAX}")
    layout.code = code
    layout.size = size
    layout.names = names
    layout.inner = inner
    return layout


def unsigned(width):
    if width not in (1, 2, 4, 8):
        raise ValueError(f"a number has 1, 2, 4 or 8 bytes, not {width}")
    return made(UNSIGNED, width)


def signed(width):
    if width not in (1, 2, 4, 8):
        raise ValueError(f"a number has 1, 2, 4 or 8 bytes, not {width}")
    return made(SIGNED, width)


def exactly(size):
    return made(EXACTLY, size)


def sized(limit):
    return made(SIZED, limit)


def text(limit):
    return made(TEXT, limit)


def flag():
    return made(FLAG, 0)


def optional(Layout inner not None):
    return made(OPTIONAL, 0, (), (inner,))


def sequence(Layout element not None, limit):
    return made(SEQUENCE, limit, (), (element,))


def record(names, layouts):
    names, layouts = tuple(names), tuple(layouts)
    if len(names) != len(layouts):
        raise ValueError(f"{len(names)} names for {len(layouts)} layouts")
    return made(RECORD, 0, names, layouts)
