#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "fixtures.hpp"

namespace {

// No test uses the caches and records of the user who runs it.
const tcmoa::testing::UserFolders users;

}  // namespace
