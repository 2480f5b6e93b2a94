"""Values laid out as bytes. See packing.pyi for the contract."""

from types import MemberDescriptorType

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize
from cpython.long cimport (
    PyLong_AsLongLong,
    PyLong_AsLongLongAndOverflow,
    PyLong_AsUnsignedLongLong,
    PyLong_Check,
)
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_Check, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

cdef extern from "little_endian.h" nogil:
    uint64_t load_le64(const void *data)
    void store_le64(void *data, uint64_t word)

cdef extern from *:
    """
    static int assay_set_member(PyObject *member, PyObject *owner, PyObject *value) {
        return Py_TYPE(member)->tp_descr_set(member, owner, value);
    }
    """
    int assay_set_member(object member, object owner, object value) except -1

cdef enum:
    UNSIGNED
    SIGNED
    EXACTLY
    SIZED
    TEXT
    FLAG
    OPTIONAL
    SEQUENCE
    ENUMERATION
    RECORD

cdef enum:
    BYTES_AT_FIRST = 512

LENGTH_MAX = 0xFFFFFFFF

make_tuple = tuple.__new__
make_object = object.__new__


class DecodeError(ValueError):
    pass


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
    cdef uint8_t[8] word
    store_le64(word, number)
    memcpy(more(out, width), word, width)
    return 0


cdef const uint8_t *take(cursor *source, size_t size) except NULL:
    """The next bytes, behind which the cursor goes on."""
    cdef size_t start = source.at
    if size > source.end - start:
        raise DecodeError(f"needs {size} bytes at offset {start}, has {source.end - start}")
    source.at += size
    return source.data + start


cdef uint64_t take_number(cursor *source, size_t width) except? 0:
    cdef uint8_t[8] word
    memset(word, 0, sizeof(word))
    memcpy(word, take(source, width), width)
    return load_le64(word)


cdef inline int spare_bits(uint32_t width):
    """Of a number's bytes in a word of 64 bits."""
    return 64 - 8 * <int>width


cdef size_t take_count(cursor *source, size_t limit) except? 0:
    cdef size_t count = take_number(source, 4)
    if count > limit:
        raise DecodeError(f"count {count} at offset {source.at - 4} exceeds {limit}")
    return count


cdef int take_flag(cursor *source) except -1:
    cdef uint8_t byte = take(source, 1)[0]
    if byte > 1:
        raise DecodeError(f"flag at offset {source.at - 1} is {byte}, not 0 or 1")
    return byte


cdef class Layout:
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

    def unpack(self, data):
        cdef bytes held = data if type(data) is bytes else bytes(memoryview(data))
        cdef cursor source
        source.data = <const uint8_t *>PyBytes_AS_STRING(held)
        source.at = 0
        source.end = len(held)
        value = self.get(&source)
        if source.at != source.end:
            raise DecodeError(
                f"{source.end - source.at} bytes left over after {type(value).__name__}")
        return value

    cdef object get(self, cursor *source):
        cdef size_t length
        cdef int spare
        if self.code == UNSIGNED:
            return take_number(source, self.size)
        if self.code == SIGNED:
            spare = spare_bits(self.size)
            return <int64_t>(take_number(source, self.size) << spare) >> spare
        if self.code == EXACTLY:
            return PyBytes_FromStringAndSize(<const char *>take(source, self.size), self.size)
        if self.code == FLAG:
            return bool(take_flag(source))
        if self.code == OPTIONAL:
            return (<Layout>self.inner[0]).get(source) if take_flag(source) else None
        if self.code == ENUMERATION:
            return self.get_member(take(source, 1)[0])
        if self.code == SEQUENCE:
            return self.get_sequence(source)
        if self.code == RECORD:
            return self.get_record(source)
        length = take_count(source, self.size)
        if self.code == SIZED:
            return PyBytes_FromStringAndSize(<const char *>take(source, length), length)
        try:
            return PyUnicode_DecodeUTF8(<const char *>take(source, length), length, NULL)
        except UnicodeDecodeError as error:
            raise DecodeError(f"text is not UTF-8: {error.reason}") from error

    cdef object get_member(self, uint8_t byte):
        member = self.members.get(byte)
        if member is None:
            raise DecodeError(f"{byte} is no {self.kind.__name__}")
        return member

    cdef object get_sequence(self, cursor *source):
        cdef Layout element = self.inner[0]
        cdef size_t count = take_count(source, self.size), place
        cdef tuple values
        if element.least > 0 and count > (source.end - source.at) / element.least:
            take(source, count * element.least)  # which are not there
        values = PyTuple_New(count)
        for place in range(count):
            item = element.get(source)
            Py_INCREF(item)
            PyTuple_SET_ITEM(values, place, item)
        return values

    cdef object get_record(self, cursor *source):
        cdef Py_ssize_t count = len(self.inner), place
        cdef tuple values
        if self.slots is not None:
            record = make_object(self.kind)
            for place in range(count):
                item = (<Layout>self.inner[place]).get(source)
                assay_set_member(self.slots[place], record, item)
            return record
        values = PyTuple_New(count)
        for place in range(count):
            item = (<Layout>self.inner[place]).get(source)
            Py_INCREF(item)
            PyTuple_SET_ITEM(values, place, item)
        if self.is_tuple:
            return make_tuple(self.kind, values)
        try:
            return self.kind(*values)
        except DecodeError:
            raise
        except ValueError as error:
            raise DecodeError(f"{self.kind.__name__}: {error}") from error

    cdef int put(self, buffer *out, object value) except -1:
        if self.code == UNSIGNED or self.code == ENUMERATION:
            return self.put_unsigned(out, value)
        if self.code == EXACTLY and PyBytes_Check(value) and len(<bytes>value) == self.size:
            memcpy(more(out, self.size), PyBytes_AS_STRING(value), self.size)
        elif self.code == SIGNED:
            self.put_signed(out, value)
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

    cdef int put_unsigned(self, buffer *out, object value) except -1:
        cdef unsigned long long number
        cdef int spare = spare_bits(self.size), overflow = 0
        if PyLong_Check(value):  # almost always, and small enough to need no exception
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow == 0 and number << spare >> spare == number and <long long>number >= 0:
                return put_number(out, number, self.size)
        try:
            number = PyLong_AsUnsignedLongLong(PyNumber_Index(value))
        except OverflowError as error:
            raise self.too_wide(value) from error
        if number << spare >> spare != number:
            raise self.too_wide(value)
        return put_number(out, number, self.size)

    cdef int put_signed(self, buffer *out, object value) except -1:
        cdef long long number
        cdef int spare = spare_bits(self.size)
        try:
            number = PyLong_AsLongLong(PyNumber_Index(value))
        except OverflowError as error:
            raise self.too_wide(value) from error
        if <int64_t>(<uint64_t>number << spare) >> spare != number:
            raise self.too_wide(value)
        return put_number(out, <uint64_t>number, self.size)

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


cdef Layout made(int code, size, uint64_t least, tuple inner=()):
    cdef Layout layout = Layout.__new__(Layout)
    if not 0 <= size <= LENGTH_MAX:
        raise ValueError(f"a size is {size}, allowed are 0 to {LENGTH_MAX}")
    layout.code = code
    layout.size = size
    layout.least = least
    layout.names = ()
    layout.inner = inner
    return layout


cdef Layout number_of(int code, width):
    if width not in (1, 2, 4, 8):
        raise ValueError(f"a number has 1, 2, 4 or 8 bytes, not {width}")
    return made(code, width, width)


def unsigned(width):
    return number_of(UNSIGNED, width)


def signed(width):
    return number_of(SIGNED, width)


def exactly(size):
    return made(EXACTLY, size, max(0, size))


def sized(limit):
    return made(SIZED, limit, 4)


def text(limit):
    return made(TEXT, limit, 4)


def flag():
    return made(FLAG, 0, 1)


def optional(Layout inner not None):
    return made(OPTIONAL, 0, 1, (inner,))


def sequence(Layout element not None, limit):
    return made(SEQUENCE, limit, 4, (element,))


def enumeration(kind):
    cdef Layout layout = made(ENUMERATION, 1, 1)
    layout.kind = kind
    layout.members = {int(member): member for member in kind}
    return layout


def record(kind, names, layouts):
    cdef Layout layout, part
    cdef uint64_t least = 0
    names, layouts = tuple(names), tuple(layouts)
    if len(names) != len(layouts):
        raise ValueError(f"{len(names)} names for {len(layouts)} layouts")
    for part in layouts:
        if part is None:
            raise TypeError("a layout is needed, not None")
        least += part.least
    layout = made(RECORD, 0, least, layouts)
    layout.kind = kind
    layout.names = names
    layout.is_tuple = issubclass(kind, tuple)
    layout.slots = plain_slots(kind, names)
    return layout


cdef tuple plain_slots(kind, tuple names):
    """The descriptors of a slotted dataclass that only holds its fields: setting these is all that
    its own `__init__` does. None for any other class."""
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.init or hasattr(kind, "__post_init__"):
        return None
    slots = tuple([vars(kind).get(name) for name in names])
    return slots if all([type(slot) is MemberDescriptorType for slot in slots]) else None
