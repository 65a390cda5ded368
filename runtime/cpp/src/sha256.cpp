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

class Digest {
public:
    Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
            fail_internal("OpenSSL", "SHA-256 is not available", "check OpenSSL's configuration");
        }
    }

    void update(const char *data, std::size_t bytes) {
        if (EVP_DigestUpdate(context_.get(), data, bytes) != 1) fail_internal("OpenSSL", "SHA-256 failed");
    }

    std::string hex() {
        std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
        unsigned int length = 0;
        if (EVP_DigestFinal_ex(context_.get(), raw.data(), &length) != 1) fail_internal("OpenSSL", "SHA-256 failed");
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

}  // namespace

std::string sha256(std::string_view bytes) {
    Digest digest;
    digest.update(bytes.data(), bytes.size());
    return digest.hex();
}

std::string sha256_file(const std::filesystem::path &path) {
    std::ifstream file(path, std::ios::binary);
    Digest digest;
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
