/*
 * Between JavaScript's values and those of holdfast.h. JavaScript has validated what it passes;
 * what could still overflow or overrun is checked here again and read as empty.
 */
#ifndef HF_BINDING_CONVERT_H
#define HF_BINDING_CONVERT_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <napi.h>

#include "binding/environment.h"
#include "holdfast.h"

namespace holdfast {

// The arguments of one call. Numbers that are none read as 0.
template <size_t N> class Arguments {
public:
    Arguments(napi_env env, napi_callback_info info) : env_(env) {
        size_t count = N;
        void *data = nullptr;
        napi_get_cb_info(env, info, &count, values_, nullptr, &data);
        environment_ = static_cast<Environment *>(data);
    }

    Environment *environment() const {
        return environment_;
    }
    napi_value operator[](size_t i) const {
        return values_[i];
    }
    double Number(size_t i) const {
        double value = 0;
        napi_get_value_double(env_, values_[i], &value);
        return value;
    }
    uint32_t Uint(size_t i) const {
        uint32_t value = 0;
        napi_get_value_uint32(env_, values_[i], &value);
        return value;
    }
    // A whole number up to HF_INT_MAX, as version and fence are.
    uint64_t Whole(size_t i) const {
        const double value = Number(i);
        return value >= 1 && value <= static_cast<double>(HF_INT_MAX) ? static_cast<uint64_t>(value)
                                                                      : 0;
    }
    int64_t Signed(size_t i) const {
        int64_t value = 0;
        napi_get_value_int64(env_, values_[i], &value);
        return value;
    }
    // Milliseconds; Infinity is HF_FOREVER.
    uint64_t Duration(size_t i) const {
        const double value = Number(i);
        if (!(value > 0)) return 0;
        return value > static_cast<double>(HF_INT_MAX) ? HF_FOREVER : static_cast<uint64_t>(value);
    }
    template <typename T> T *Handle(size_t i) const {
        return environment_->Get<T>(Uint(i));
    }

private:
    napi_env env_;
    Environment *environment_ = nullptr;
    napi_value values_[N];
};

// A short string on the stack: a key, a note.
template <size_t N> class Text {
public:
    Text(napi_env env, napi_value value) {
        if (napi_get_value_string_utf8(env, value, data_, sizeof data_, &len_) != napi_ok) len_ = 0;
    }
    hf_slice slice() const {
        return {data_, len_};
    }

private:
    char data_[N + 4]; // room for the NUL, and for a last character that does not fit
    size_t len_ = 0;
};

using Key = Text<HF_KEY_MAX>;

// The keys of one lock: a string, or an array of strings.
class Keys {
public:
    Keys(napi_env env, napi_value value);
    Keys(const Keys &) = delete;
    Keys &operator=(const Keys &) = delete;
    const hf_slice *slices() const {
        return slices_.data();
    }
    size_t size() const {
        return slices_.size();
    }

private:
    std::string bytes_;
    std::vector<hf_slice> slices_;
};
using Note = Text<HF_NOTE_MAX>;

// The settings of a client: names and values in turn, each a string or a Uint8Array. They are
// wiped in the end, for they may be secret.
class Settings {
public:
    Settings(napi_env env, napi_value value);
    ~Settings();
    Settings(const Settings &) = delete;
    Settings &operator=(const Settings &) = delete;
    const hf_setting *data() const {
        return settings_.data();
    }
    size_t size() const {
        return settings_.size();
    }

private:
    std::vector<std::string> texts_;
    std::vector<hf_setting> settings_;
};

inline hf_slice Slice(const std::string &text) {
    return {text.data(), text.size()};
}

// A string as UTF-8, or the bytes of a Uint8Array; anything else is empty.
std::string Bytes(napi_env env, napi_value value);

hf_error LocalError(hf_code code);
// [code, message, flags, native, state], from which lib/errors.js makes an Error.
napi_value ErrorValue(napi_env env, const hf_error &error);
// The same with the votes of the nodes of a quorum as the last.
napi_value ErrorValue(napi_env env, const hf_error &error, const hf_vote *votes, size_t count);
// [[node, vote, error | null]...]; undefined where there are none.
napi_value VotesValue(napi_env env, const hf_vote *votes, size_t count);
// [name, state, reason, left]
napi_value NodeValue(napi_env env, const hf_node &node);
// What a function returns that could not start: null if it could.
napi_value StartResult(napi_env env, hf_code code, const hf_error &error);
// For a client that is closed.
napi_value ClosedResult(napi_env env);
// [token, fence, left, since, limit, who, note]
napi_value HolderValue(napi_env env, const hf_holder &holder);
// A Buffer, or the text of JSON.
napi_value ValueOf(napi_env env, hf_slice value, uint8_t format);
std::string TokenHex(const hf_token &token);

napi_value Double(napi_env env, double value);
// Milliseconds of the core; HF_FOREVER is Infinity.
napi_value Milliseconds(napi_env env, uint64_t value);
double MillisecondsNumber(uint64_t value);

// Adds the functions of one file to the exports.
void Define(napi_env env, napi_value exports, Environment *environment, const char *name,
            napi_callback function);
void DefineClient(napi_env env, napi_value exports, Environment *environment);
void DefineLock(napi_env env, napi_value exports, Environment *environment);
void DefineOnce(napi_env env, napi_value exports, Environment *environment);
void DefineOps(napi_env env, napi_value exports, Environment *environment);
void DefinePostgres(napi_env env, napi_value exports, Environment *environment);
void DefineSql(napi_env env, napi_value exports, Environment *environment);

} // namespace holdfast

#endif
