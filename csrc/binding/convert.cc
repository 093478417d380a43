#include "binding/convert.h"

#include <string.h>

#include <cstdio>
#include <limits>

namespace holdfast {

std::string Bytes(napi_env env, napi_value value) {
    std::string bytes;
    napi_valuetype type = napi_undefined;
    napi_typeof(env, value, &type);
    if (type == napi_string) {
        size_t size = 0;
        if (napi_get_value_string_utf8(env, value, nullptr, 0, &size) != napi_ok) return bytes;
        bytes.resize(size);
        // Node writes a NUL behind the last byte, where std::string keeps its own.
        napi_get_value_string_utf8(env, value, bytes.data(), size + 1, &size);
    } else if (type == napi_object) {
        bool typed = false;
        napi_is_typedarray(env, value, &typed);
        if (!typed) return bytes;
        napi_typedarray_type kind = napi_int8_array;
        size_t size = 0;
        void *data = nullptr;
        napi_get_typedarray_info(env, value, &kind, &size, &data, nullptr, nullptr);
        if (kind == napi_uint8_array && size > 0) bytes.assign(static_cast<char *>(data), size);
    }
    return bytes;
}

Keys::Keys(napi_env env, napi_value value) {
    bool several = false;
    uint32_t count = 1;
    napi_is_array(env, value, &several);
    if (several && napi_get_array_length(env, value, &count) != napi_ok) count = 0;
    slices_.reserve(count);
    for (uint32_t i = 0; i < count; i++) {
        napi_value key = value;
        if (several) napi_get_element(env, value, i, &key);
        const std::string bytes = Bytes(env, key);
        slices_.push_back({nullptr, bytes.size()});
        bytes_ += bytes;
    }
    // Only now do the bytes stay where they are.
    const char *data = bytes_.data();
    for (hf_slice &slice : slices_) {
        slice.data = data;
        data += slice.len;
    }
}

Settings::Settings(napi_env env, napi_value value) {
    uint32_t count = 0;
    if (napi_get_array_length(env, value, &count) != napi_ok) count = 0;
    texts_.reserve(count);
    for (uint32_t i = 0; i < count; i++) {
        napi_value each = nullptr;
        napi_get_element(env, value, i, &each);
        texts_.push_back(Bytes(env, each));
    }
    for (size_t i = 0; i + 1 < texts_.size(); i += 2) {
        settings_.push_back({Slice(texts_[i]), Slice(texts_[i + 1])});
    }
}

Settings::~Settings() {
    for (std::string &text : texts_)
        explicit_bzero(text.data(), text.size());
}

hf_error LocalError(hf_code code) {
    hf_error error{};
    error.code = code;
    std::snprintf(error.message, sizeof error.message, "%s", hf_code_text(code));
    return error;
}

napi_value Double(napi_env env, double value) {
    napi_value result = nullptr;
    napi_create_double(env, value, &result);
    return result;
}

double MillisecondsNumber(uint64_t value) {
    if (value == HF_FOREVER) return std::numeric_limits<double>::infinity();
    return static_cast<double>(value);
}

napi_value Milliseconds(napi_env env, uint64_t value) {
    return Double(env, MillisecondsNumber(value));
}

napi_value ErrorValue(napi_env env, const hf_error &error) {
    const Napi::Array value = Napi::Array::New(env, 5);
    value.Set(0u, Napi::String::New(env, hf_code_name(error.code)));
    value.Set(1u, Napi::String::New(env, error.message));
    value.Set(2u, Napi::Number::New(env, error.flags));
    value.Set(3u, Napi::Number::New(env, error.native));
    value.Set(4u, Napi::String::New(env, error.state));
    return value;
}

napi_value VotesValue(napi_env env, const hf_vote *votes, size_t count) {
    if (count == 0) {
        napi_value nothing = nullptr;
        napi_get_undefined(env, &nothing);
        return nothing;
    }
    const Napi::Array value = Napi::Array::New(env, count);
    for (uint32_t i = 0; i < count; i++) {
        const bool failed = votes[i].error.code != HF_OK;
        const Napi::Array each = Napi::Array::New(env, 3);
        each.Set(0u, Napi::String::New(env, votes[i].node));
        each.Set(1u, Napi::Number::New(env, votes[i].kind));
        each.Set(2u, failed ? Napi::Value(env, ErrorValue(env, votes[i].error))
                            : Napi::Value(Napi::Env(env).Null()));
        value.Set(i, each);
    }
    return value;
}

napi_value ErrorValue(napi_env env, const hf_error &error, const hf_vote *votes, size_t count) {
    const Napi::Array value(env, ErrorValue(env, error));
    if (count > 0) value.Set(5u, Napi::Value(env, VotesValue(env, votes, count)));
    return value;
}

napi_value NodeValue(napi_env env, const hf_node &node) {
    const Napi::Array value = Napi::Array::New(env, 4);
    value.Set(0u, Napi::String::New(env, node.name));
    value.Set(1u, Napi::Number::New(env, node.state));
    value.Set(2u, Napi::Number::New(env, node.reason));
    value.Set(3u, Napi::Value(env, Milliseconds(env, node.left_ms)));
    return value;
}

napi_value StartResult(napi_env env, hf_code code, const hf_error &error) {
    if (code != HF_OK) return ErrorValue(env, error);
    napi_value nothing = nullptr;
    napi_get_null(env, &nothing);
    return nothing;
}

napi_value ClosedResult(napi_env env) {
    return ErrorValue(env, LocalError(HF_ECLOSED));
}

std::string TokenHex(const hf_token &token) {
    static const char digits[] = "0123456789abcdef";
    std::string hex;
    hex.reserve(2 * sizeof token.bytes);
    for (const uint8_t byte : token.bytes) {
        hex.push_back(digits[byte >> 4]);
        hex.push_back(digits[byte & 15]);
    }
    return hex;
}

napi_value HolderValue(napi_env env, const hf_holder &holder) {
    const Napi::Array value = Napi::Array::New(env, 7);
    value.Set(0u, Napi::String::New(env, TokenHex(holder.token)));
    value.Set(1u, Napi::Number::New(env, static_cast<double>(holder.fence)));
    value.Set(2u, Napi::Value(env, Milliseconds(env, holder.left_ms)));
    value.Set(3u, Napi::Number::New(env, static_cast<double>(holder.since_us)));
    value.Set(4u, Napi::Number::New(env, holder.limit));
    value.Set(5u, Napi::String::New(env, holder.who));
    value.Set(6u, Napi::String::New(env, holder.note));
    return value;
}

napi_value ValueOf(napi_env env, hf_slice value, uint8_t format) {
    napi_value result = nullptr;
    if (format == HF_BYTES) {
        napi_create_buffer_copy(env, value.len, value.data, nullptr, &result);
    } else {
        napi_create_string_utf8(env, value.data == nullptr ? "" : value.data, value.len, &result);
    }
    return result;
}

void Define(napi_env env, napi_value exports, Environment *environment, const char *name,
            napi_callback function) {
    napi_value value = nullptr;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, function, environment, &value);
    napi_set_named_property(env, exports, name, value);
}

} // namespace holdfast
