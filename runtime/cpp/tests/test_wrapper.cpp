// tcmoa.hpp: handles move, and results carry failures.
#include <catch2/catch.hpp>
#include <type_traits>

#include "fixtures.hpp"
#include "tcmoa.hpp"

using namespace tcmoa::testing;
using Catch::Matchers::Contains;

static_assert(!std::is_copy_constructible_v<tcmoa::Fuser>);
static_assert(std::is_nothrow_move_constructible_v<tcmoa::Fuser>);

TEST_CASE("the wrapper fuses, sets prompts and moves") {
    Reference reference("vif-small");
    tcmoa::Options options;
    options.slots = 1;
    auto opened = tcmoa::Fuser::open(bundle_folder("vif-small").string(), options);
    REQUIRE(opened);
    tcmoa::Fuser fuser = std::move(opened).value();
    CHECK(fuser.info().value().slots == 1);
    Bytes out(reference.fused.size());
    const auto x = tcmoa::rgb(std::as_const(reference.x), 112, 112), y = tcmoa::rgb(reference.y, 112, 112);
    const auto fused = tcmoa::rgb(out, 112, 112);
    REQUIRE(fuser.fuse(x, y, fused));
    CHECK(out == reference.fused);
    REQUIRE(fuser.set_prompt(1.5F, 0.25F));
    const auto ticket = fuser.submit(x, y);
    REQUIRE(ticket);
    CHECK(fuser.submit(x, y).error().status == TCMOA_ERROR_BUSY);
    REQUIRE(fuser.wait(*ticket, fused, std::chrono::minutes(5)));
    CHECK(out == reference.prompted);
    const std::vector<float> ones(49, 1.0F), zeros(49, 0.0F);
    REQUIRE(fuser.set_prompt_maps(ones, zeros));
    std::vector<float> prompt(196);
    REQUIRE(fuser.fuse(x, y, fused, prompt));
    CHECK(out == reference.fused);
    REQUIRE(fuser.discard(fuser.submit(x, y).value()));
    CHECK(fuser.stats()->frames == 3);

    tcmoa::Fuser moved(std::move(fuser));
    REQUIRE(moved.fuse(x, y, fused));
    const auto empty = fuser.fuse(x, y, fused);
    REQUIRE_FALSE(empty);
    CHECK_THAT(empty.error().message, Contains("the handle is NULL"));
}

TEST_CASE("failures of the wrapper have messages") {
    const auto missing = tcmoa::Fuser::open("/nowhere");
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().status == TCMOA_ERROR_BUNDLE);
    CHECK_THAT(missing.error().message, Contains("/nowhere: no such bundle"));
    CHECK_THROWS_AS(missing.value(), tcmoa::BadResultAccess);
    try {
        (void)missing.value();
    } catch (const tcmoa::BadResultAccess &error) {
        CHECK(error.status() == TCMOA_ERROR_BUNDLE);
    }
    auto fuser = tcmoa::Fuser::open(bundle_folder("vif-small").string()).value();
    Bytes bytes(112 * 112 * 3), few(10);
    const auto good = tcmoa::bgr(bytes, 112, 112);
    CHECK_THAT(fuser.fuse(tcmoa::rgb(few, 112, 112), good, good).error().message, Contains("x: plane 0 is NULL"));
    CHECK_THAT(fuser.fuse(good, tcmoa::gray(bytes, 64, 64), good).error().message, Contains("y: 64x64"));
    const std::vector<float> map(49), other(48);
    CHECK_THAT(fuser.set_prompt_maps(map, other).error().message, Contains("shift: 48 values; expected 49 as in scale"));
    CHECK_THAT(fuser.set_prompt_maps({}, {}).error().message, Contains("count: 0"));
    CHECK_THAT(fuser.wait(77, good).error().message, Contains("ticket 77: has no frame"));
}
