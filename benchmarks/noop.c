/* The least that a call of three arguments from Python can cost, and a walk over a dict. */
#include <Python.h>

static PyObject *noop(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    (void)args;
    (void)count;
    Py_RETURN_NONE;
}

/* walk(dict, step): look at each name and value. */
static PyObject *walk(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *name, *value;
    Py_ssize_t next = 0;
    volatile const void *seen = NULL;
    (void)self;
    (void)count;
    while (PyDict_Next(args[0], &next, &name, &value)) {
        seen = name;
        seen = value;
    }
    (void)seen;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"walk", (PyCFunction)(void (*)(void))walk, METH_FASTCALL, NULL},
    {"noop", (PyCFunction)(void (*)(void))noop, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "noop", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit_noop(void)
{
    return PyModule_Create(&module);
}
