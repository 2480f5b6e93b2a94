"""Copies of named tuples. See tuples.pyi for the contract."""

cdef extern from *:
    """
    /* Of a named tuple's class: {name of a field: its place}. Classes that are here stay. */
    static PyObject *assay_places;

    static PyObject *assay_replace(PyObject *self, PyObject *const *values, Py_ssize_t count,
                                   PyObject *names) {
        const Py_ssize_t size = PyTuple_GET_SIZE(self);
        PyObject *places = PyDict_GetItemWithError(assay_places, (PyObject *)Py_TYPE(self));
        PyObject *copy;
        if (places == NULL || count != 0) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "%s._replace takes fields by name, and an instance of "
                             "the very class", Py_TYPE(self)->tp_name);
            return NULL;
        }
        copy = Py_TYPE(self)->tp_alloc(Py_TYPE(self), size);
        if (copy == NULL) return NULL;
        for (Py_ssize_t place = 0; place < size; place++) {
            PyObject *item = PyTuple_GET_ITEM(self, place);
            Py_INCREF(item);
            PyTuple_SET_ITEM(copy, place, item);
        }
        for (Py_ssize_t at = 0; names != NULL && at < PyTuple_GET_SIZE(names); at++) {
            PyObject *found = PyDict_GetItemWithError(places, PyTuple_GET_ITEM(names, at));
            Py_ssize_t place;
            PyObject *before;
            if (found == NULL) {
                if (!PyErr_Occurred())
                    PyErr_Format(PyExc_ValueError, "%s has no field %R", Py_TYPE(self)->tp_name,
                                 PyTuple_GET_ITEM(names, at));
                Py_DECREF(copy);
                return NULL;
            }
            place = PyLong_AsSsize_t(found);
            before = PyTuple_GET_ITEM(copy, place);
            Py_INCREF(values[at]);
            PyTuple_SET_ITEM(copy, place, values[at]);
            Py_DECREF(before);
        }
        return copy;
    }

    static PyMethodDef assay_replace_method = {
        "_replace", (PyCFunction)(void (*)(void))assay_replace, METH_FASTCALL | METH_KEYWORDS,
        "A copy with other values in the fields named."};

    static PyObject *assay_replace_of(PyObject *kind, PyObject *kinds) {
        assay_places = kinds;
        return PyDescr_NewMethod((PyTypeObject *)kind, &assay_replace_method);
    }
    """
    object assay_replace_of(object kind, object kinds)

cdef dict places = {}


def quickly_replaced(kind):
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise TypeError(f"{kind!r} is no named tuple")
    places[kind] = {name: place for place, name in enumerate(kind._fields)}
    kind._replace = assay_replace_of(kind, places)
    return kind
