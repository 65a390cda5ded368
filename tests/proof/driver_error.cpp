// tests/proof/driver_error.cpp: what libtcmoa says and returns where there is a driver and no GPU.
//
// Prints the message; the exit code is that of the command line: 3 where something is missing, 1 otherwise.
#include <cstdio>

#include "cuda_driver.hpp"
#include "error.hpp"

int main() {
    try {
        (void)tcmoa::cuda::Driver::get();
    } catch (const tcmoa::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.status() == TCMOA_ERROR_MISSING ? 3 : 1;
    }
    return 0;
}
