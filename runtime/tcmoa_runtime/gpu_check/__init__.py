"""`tcmoa gpu-check`: whether the GPU path works on this machine, and how fast, in one report.

    target      what a step uses: a GPU, or its simulation
    real_gpu    the GPU, by the same classes that fuse frames
    simulation  a stand-in without a GPU for dry runs; it measures nothing
    bundles     the bundles that engines are built into, one of them quantized for 8 bits
    steps       the steps, and how one of them is run
    run         all steps, each of them in a process that a failure does not take along
    report      the report and its verdict

A step raises to fail. Nothing of a simulated run is reported as measured: `steps.run_step` removes every number.
"""
