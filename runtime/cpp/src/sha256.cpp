#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>
#include <system_error>
#include <vector>

#include "error.hpp"

namespace tcmoa {
namespace {

constexpr std::size_t kChunkBytes = 1 << 20;

}  // namespace

struct Sha256::State {
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
    if (!state_->context || EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) != 1) {
        fail_internal("OpenSSL", "SHA-256 is not available", "check OpenSSL's configuration");
    }
}

Sha256::~Sha256() = default;

void Sha256::update(const char *data, std::size_t bytes) {
    if (EVP_DigestUpdate(state_->context.get(), data, bytes) != 1) fail_internal("OpenSSL", "SHA-256 failed");
}

std::string Sha256::hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
    unsigned int length = 0;
    if (EVP_DigestFinal_ex(state_->context.get(), raw.data(), &length) != 1) fail_internal("OpenSSL", "SHA-256 failed");
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        text += "0123456789abcdef"[raw[i] >> 4];
        text += "0123456789abcdef"[raw[i] & 15];
    }
    return text;
}

std::string sha256(std::string_view bytes) {
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    return digest.hex();
}

std::string sha256_file(const std::filesystem::path &path) {
    std::ifstream file(path, std::ios::binary);
    Sha256 digest;
    std::vector<char> chunk(kChunkBytes);
    while (file) {
        file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
        digest.update(chunk.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (!file.eof()) {
        throw std::filesystem::filesystem_error("cannot be read", path, std::make_error_code(std::errc::io_error));
    }
    return digest.hex();
}

}  // namespace tcmoa
