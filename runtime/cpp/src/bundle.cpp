#include "bundle.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <system_error>

#include "error.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kManifest = "bundle.json";
constexpr const char *kFormat = "tcmoa-bundle";
constexpr std::int64_t kFormatVersion = 1;
constexpr const char *kAgain = "export it again with `tcmoa export`";
constexpr std::int64_t kLargestNumber = 1 << 20;  // beyond any side or batch: products stay within 64 bits

class Digest {
public:
    Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
            fail_internal("SHA-256 is not to be had from OpenSSL; check its configuration");
        }
    }
    void update(const char *data, std::size_t bytes) {
        if (EVP_DigestUpdate(context_.get(), data, bytes) != 1) fail_internal("SHA-256 failed in OpenSSL");
    }
    std::string hex() {
        std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
        unsigned int length = 0;
        if (EVP_DigestFinal_ex(context_.get(), raw.data(), &length) != 1) fail_internal("SHA-256 failed in OpenSSL");
        std::string text;
        for (unsigned int i = 0; i < length; ++i) {
            text += "0123456789abcdef"[raw[i] >> 4];
            text += "0123456789abcdef"[raw[i] & 15];
        }
        return text;
    }

private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

void compare_size(const fs::path &path, std::uintmax_t arrived, const FileEntry &wanted, std::string_view says,
                  std::string_view again) {
    if (wanted.bytes >= 0 && arrived == static_cast<std::uintmax_t>(wanted.bytes)) return;
    fail_bundle(path.string() + ": " + std::to_string(arrived) + " bytes, " + std::string(says) + " says " +
                std::to_string(wanted.bytes) + "; it is truncated or another file: copy the bundle whole, or " +
                std::string(again));
}

void compare_hash(const fs::path &path, const std::string &arrived, const FileEntry &wanted, std::string_view says,
                  std::string_view again) {
    if (arrived == wanted.sha256) return;
    fail_bundle(path.string() + ": SHA-256 is " + arrived.substr(0, 12) + "…, " + std::string(says) + " says " +
                shown(wanted.sha256, 12) + "; it was changed since it was written: copy the bundle anew, or " +
                std::string(again));
}

std::uintmax_t size_of(const fs::path &path, std::string_view again) {
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    if (error) fail_bundle(path.string() + ": cannot be read: " + error.message() + "; " + std::string(again));
    return bytes;
}

Manifest contract_to_json(const Contract &contract) {
    const auto plain = [](const std::vector<TensorSpec> &specs) {
        auto object = Manifest::object();
        for (const auto &spec : specs) {
            object[spec.name] = {{"dtype", spec.element == Element::uint8 ? "uint8" : "float32"},
                                 {"shape", spec.shape}};
        }
        return object;
    };
    return {{"inputs", plain(contract.inputs())}, {"outputs", plain(contract.outputs())}};
}

// Check all that the library relies on and rebuild the contract from its few numbers.
void read_contract(Bundle &bundle, const Reader &reader) {
    bundle.task = reader.text("task", {"vif", "mef", "mff"});
    bundle.channel_order = reader.text("channel_order", {"rgb", "bgr"});
    bundle.precision = reader.text("precision");
    bundle.preset = reader.text("preset");
    bundle.fit = reader.text("fit", {"pad", "crops", "resize"});
    const auto side = reader.integer("token_pixels");
    if (side != 8 && side != 16) reader.refuse("token_pixels", "8, 16");
    bundle.token_pixels = static_cast<int>(side);
    bundle.graph_name = reader.part("graph").text("name");
    const auto prompt = reader.part("prompt_default");
    bundle.default_scale = static_cast<float>(prompt.number("scale"));
    bundle.default_shift = static_cast<float>(prompt.number("shift"));
    const auto files = reader.part("files");
    (void)files.part(kGraph);
    for (const auto &[name, value] : files.values().items()) {
        const auto entry = files.part(name);
        bundle.files[name] = {entry.text("sha256"), entry.integer("bytes")};
        if (name != kGraph && name != kGraphData) {
            fail_bundle(reader.path().string() + ": lists an unknown file '" + shown(name) +
                        "'; it was made by other software: " + kAgain);
        }
    }
    const auto frame = reader.part("frame");
    auto &contract = bundle.contract;
    contract.height = frame.integer("height");
    contract.width = frame.integer("width");
    contract.batch = frame.integer("batch");
    contract.x_channels = frame.integer("x_channels");
    contract.y_channels = frame.integer("y_channels");
    contract.prompts = frame.integer("prompts");
    contract.with_prompt = frame.boolean("with_prompt");
    const auto &grid = frame.array("grid");
    if (grid.size() != 2 || !grid[0].is_number_integer() || !grid[1].is_number_integer()) {
        frame.refuse("grid", "two whole numbers");
    }
    const auto within = [](const Manifest &number) { return number > 0 && number <= kLargestNumber; };
    for (const char *key : {"height", "width", "batch", "x_channels", "y_channels"}) {
        if (!within(frame.values().at(key))) frame.refuse(key, "a size from 1 to 1048576");
    }
    if (!within(grid[0]) || !within(grid[1])) frame.refuse("grid", "sizes from 1 to 1048576");
    if (contract.prompts < 0 || contract.prompts > kLargestNumber) frame.refuse("prompts", "a number from 0 on");
    contract.grid_height = grid[0].get<std::int64_t>();
    contract.grid_width = grid[1].get<std::int64_t>();
    const auto tokens = [side](std::int64_t pixels) { return (pixels + side - 1) / side; };
    if (bundle.fit != "resize" && (contract.grid_height != tokens(contract.height) ||
                                   contract.grid_width != tokens(contract.width))) {
        fail_bundle(reader.path().string() + ": grid " + grid.dump() + " does not cover the frame in tokens of " +
                    std::to_string(side) + " pixels; " + kAgain);
    }
    const auto stated = bundle.manifest.find("contract");
    if (stated == bundle.manifest.end() || *stated != contract_to_json(contract)) {
        fail_bundle(reader.path().string() + ": its 'contract' is not the graph contract for this frame; " + kAgain);
    }
}

}  // namespace

std::string sha256(std::string_view bytes) {
    Digest digest;
    digest.update(bytes.data(), bytes.size());
    return digest.hex();
}

std::string sha256_file(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    Digest digest;
    std::vector<char> chunk(1 << 20);
    while (file) {
        file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
        digest.update(chunk.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (!file.eof()) {
        throw fs::filesystem_error("cannot be read", path, std::make_error_code(std::errc::io_error));
    }
    return digest.hex();
}

std::string read_checked(const fs::path &path, const FileEntry &wanted, std::string_view says,
                         std::string_view again) {
    const auto bytes = size_of(path, again);
    compare_size(path, bytes, wanted, says, again);
    std::string data(bytes, '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(data.data(), static_cast<std::streamsize>(bytes));
    if (!file) fail_bundle(path.string() + ": cannot be read; make it readable, or " + std::string(again));
    compare_hash(path, sha256(data), wanted, says, again);
    return data;
}

Bundle Bundle::open(const fs::path &path) {
    const std::string where = path.string();
    std::error_code error;
    const auto status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) {
        fail_bundle(where + ": no such bundle; make one with `tcmoa export --out " + where + "`");
    }
    if (error) fail_bundle(where + ": cannot be read: " + error.message() + "; make one with `tcmoa export`");
    if (!fs::is_directory(status)) {
        fail_bundle(where + ": is a file, expected a bundle folder as `tcmoa export` writes it");
    }
    const auto manifest = path / kManifest;
    if (!fs::is_regular_file(manifest, error)) {
        fail_bundle(where + ": holds no bundle.json, so it is no bundle; make one with `tcmoa export`");
    }
    Bundle bundle;
    bundle.path = path;
    bundle.manifest = read_manifest(manifest, kFormat, kFormatVersion, "a TC-MoA bundle", kAgain);
    read_contract(bundle, Reader(manifest, bundle.manifest, kAgain));
    if (bundle.manifest.contains("alignment")) {  // fusing without it would be wrong, and not be seen
        fail_bundle(where + ": aligns its sources ('alignment' in bundle.json), and libtcmoa does not warp: warp in the "
                    "pipeline and use the bundle from before `tcmoa calibrate align`, or use the Python runtime");
    }
    for (const auto &[name, entry] : bundle.files) {
        if (!fs::is_regular_file(path / name, error)) {
            fail_bundle(where + ": '" + name + "' is missing, bundle.json lists it; copy it whole, or " + kAgain);
        }
    }
    return bundle;
}

void Bundle::check() const {
    for (const auto &[name, entry] : files) {
        const auto file = path / name;
        compare_size(file, size_of(file, kAgain), entry, kManifest, kAgain);
        try {
            compare_hash(file, sha256_file(file), entry, kManifest, kAgain);
        } catch (const fs::filesystem_error &error) {
            fail_bundle(file.string() + ": cannot be read: " + error.code().message() + "; " + kAgain);
        }
    }
}

std::string Bundle::read_graph() const { return read_checked(graph_path(), files.at(kGraph), kManifest, kAgain); }

}  // namespace tcmoa
