"""Names are read out of binding sources as they are written: over several lines, overloaded, between lambdas."""

from tools.record_tensorrt_api import names_of

SOURCE = """
    py::enum_<BuilderFlag>(m, "BuilderFlag", py::arithmetic{}, Doc::descr)
        .value("TF32", BuilderFlag::kTF32, Doc::TF32) // .value("GONE", 1)
        .value("REFIT",
            BuilderFlag::kREFIT);

    py::class_<IRuntime>(m, "Runtime", Doc::descr, py::module_local())
        .def(py::init(&init), "logger"_a)
        .def("deserialize", [](IRuntime& self) { return self.go(); }, "x"_a)
        .def_property(
            "DLA_core", &IRuntime::get, &IRuntime::set)
        .def_property_readonly("num_cores", &IRuntime::cores);
    m.def("free_function", &go);
"""


def test_names() -> None:
    assert names_of(SOURCE) == {
        "BuilderFlag": ["REFIT", "TF32"],
        "Runtime": ["DLA_core", "deserialize", "num_cores"],
    }
