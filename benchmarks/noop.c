/* The least that a call of three arguments from Python can cost. */
#include <Python.h>

static PyObject *noop(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    (void)args;
    (void)count;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"noop", (PyCFunction)(void (*)(void))noop, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "noop", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit_noop(void)
{
    return PyModule_Create(&module);
}
