"""Copies of named tuples. See tuples.pyi for the contract."""

from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_SET_ITEM

cdef extern from *:
    """
    static PyObject *assay_empty_like(PyObject *tuple) {
        return Py_TYPE(tuple)->tp_alloc(Py_TYPE(tuple), PyTuple_GET_SIZE(tuple));
    }
    static void assay_set_item(PyObject *tuple, Py_ssize_t place, PyObject *item) {
        PyObject *before = PyTuple_GET_ITEM(tuple, place);
        Py_INCREF(item);
        PyTuple_SET_ITEM(tuple, place, item);
        Py_XDECREF(before);
    }
    """
    object assay_empty_like(object tuple)
    void assay_set_item(object tuple, Py_ssize_t place, object item)


def replace(self, /, **changes):
    cdef dict places = type(self)._places
    cdef Py_ssize_t size = PyTuple_GET_SIZE(self), place, at = 0
    cdef PyObject *name
    cdef PyObject *value
    cdef PyObject *found
    copy = assay_empty_like(self)
    for place in range(size):
        item = <object>PyTuple_GET_ITEM(self, place)
        Py_INCREF(item)
        PyTuple_SET_ITEM(copy, place, item)
    while PyDict_Next(changes, &at, &name, &value):
        found = PyDict_GetItem(places, <object>name)
        if found == NULL:
            raise ValueError(f"{type(self).__name__} has no field {<object>name!r}")
        assay_set_item(copy, <object>found, <object>value)
    return copy


def quickly_replaced(kind):
    if not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise TypeError(f"{kind!r} is no named tuple")
    kind._places = {name: place for place, name in enumerate(kind._fields)}
    kind._replace = replace
    return kind
