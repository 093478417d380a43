// Single operations: values, listing, sweeping.

#include <utility>

#include "binding/convert.h"

namespace holdfast {

namespace {

struct OpHandle : Handle {
    static constexpr Type kType = kOp;
    OpHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    hf_op op;
    // What the op refers to until it has ended.
    hf_slice slice{};
    std::string key;
    std::string value;
    std::string fence_key;
};

// [key, holder]...
napi_value RowsValue(napi_env env, const hf_op &op) {
    Napi::Array rows = Napi::Array::New(env, op.n_rows);
    for (size_t i = 0; i < op.n_rows; i++) {
        const hf_row &row = op.rows[i];
        Napi::Array pair = Napi::Array::New(env, 2);
        pair.Set(0u, Napi::String::New(env, row.key.data, row.key.len));
        pair.Set(1u, Napi::Value(env, HolderValue(env, row.holder)));
        rows.Set(static_cast<uint32_t>(i), pair);
    }
    return rows;
}

void FillRecord(Environment *environment, Record &record, const hf_op &op) {
    if (op.error.code != HF_OK) {
        environment->OpenScope();
        record.flags |= kFailed;
        environment->Attach(record, ErrorValue(environment->env(), op.error, op.votes, op.n_votes));
        return;
    }
    if (op.applied) record.flags |= kYes;
    record.flags |= static_cast<int32_t>(op.refused) << kRefusalShift;
    record.first = static_cast<double>(op.version);
    switch (op.verb) {
    case HF_LIST:
        environment->OpenScope();
        environment->Attach(record, RowsValue(environment->env(), op));
        break;
    case HF_SWEEP: record.first = op.swept; break;
    case HF_ADD: record.second = static_cast<double>(op.sum); break;
    default: break;
    }
    if (op.refused == HF_REFUSED_FENCE) record.second = static_cast<double>(op.fence);
    if (!op.entry.present) return;
    record.flags |= kPresent;
    if (op.entry.format == HF_BYTES) record.flags |= kIsBytes;
    record.first = static_cast<double>(op.entry.version);
    if (op.verb == HF_GET || op.refused == HF_REFUSED_BOUNDS) {
        environment->OpenScope();
        environment->Attach(record, ValueOf(environment->env(), op.out, op.entry.format));
    }
}

void OnDone(hf_op *op) {
    auto *handle = static_cast<OpHandle *>(op->data);
    Environment *environment = handle->env;
    if (environment->Hears(handle))
        FillRecord(environment, environment->Push(handle, kOpDone), *op);
    hf_op_reset(op);
    environment->Retire(handle);
    environment->Settle();
}

// An op that asks for `key`, in values. Null if the client is closed.
template <size_t N> OpHandle *Prepare(napi_env env, const Arguments<N> &args, hf_verb verb) {
    if (args.template Handle<ClientHandle>(0) == nullptr) return nullptr;
    auto *handle = new OpHandle(args.environment(), args.Uint(1));
    hf_op_init(&handle->op, verb, OnDone, handle);
    handle->key = Bytes(env, args[2]);
    handle->slice = Slice(handle->key);
    handle->op.keys = &handle->slice;
    handle->op.n_keys = 1;
    handle->op.space = HF_VALUES;
    return handle;
}

void SetFence(napi_env env, OpHandle *handle, napi_value key, uint64_t fence) {
    handle->fence_key = Bytes(env, key);
    handle->op.fence_key = Slice(handle->fence_key);
    handle->op.fence_in = fence;
}

template <size_t N> napi_value Submit(napi_env env, const Arguments<N> &args, OpHandle *handle) {
    hf_client *client = args.template Handle<ClientHandle>(0)->client;
    hf_error error{};
    const hf_code code = hf_submit(client, &handle->op, &error);
    if (code == HF_OK) {
        args.environment()->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// get(client, slot, key) -> null | error. An empty key is a ping.
napi_value Get(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_GET);
    if (handle == nullptr) return ClosedResult(env);
    return Submit(env, args, handle);
}

// put(client, slot, key, value, isBytes, condition, version, ttl, flags, fenceKey, fence)
//   -> null | error
napi_value Put(napi_env env, napi_callback_info info) {
    const Arguments<11> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_PUT);
    if (handle == nullptr) return ClosedResult(env);
    hf_op &op = handle->op;
    handle->value = Bytes(env, args[3]);
    op.value = Slice(handle->value);
    op.format = args.Uint(4) != 0 ? HF_BYTES : HF_JSON;
    op.condition = static_cast<uint8_t>(args.Uint(5));
    op.if_version = args.Whole(6);
    op.ttl_ms = args.Duration(7);
    op.flags = args.Uint(8);
    SetFence(env, handle, args[9], args.Whole(10));
    return Submit(env, args, handle);
}

// del(client, slot, key, condition, version, flags, fenceKey, fence) -> null | error
napi_value Del(napi_env env, napi_callback_info info) {
    const Arguments<8> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_DEL);
    if (handle == nullptr) return ClosedResult(env);
    handle->op.condition = static_cast<uint8_t>(args.Uint(3));
    handle->op.if_version = args.Whole(4);
    handle->op.flags = args.Uint(5);
    SetFence(env, handle, args[6], args.Whole(7));
    return Submit(env, args, handle);
}

// add(client, slot, key, delta, initial, min, max, flags, fenceKey, fence) -> null | error
napi_value Add(napi_env env, napi_callback_info info) {
    const Arguments<10> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_ADD);
    if (handle == nullptr) return ClosedResult(env);
    hf_op &op = handle->op;
    op.delta = args.Signed(3);
    op.initial = args.Signed(4);
    op.min = args.Signed(5);
    op.max = args.Signed(6);
    op.flags = args.Uint(7);
    SetFence(env, handle, args[8], args.Whole(9));
    return Submit(env, args, handle);
}

// list(client, slot, key, after, limit, flags) -> null | error
napi_value List(napi_env env, napi_callback_info info) {
    const Arguments<6> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_LIST);
    if (handle == nullptr) return ClosedResult(env);
    hf_op &op = handle->op;
    op.space = HF_LEASES;
    handle->value = Bytes(env, args[3]);
    op.value = Slice(handle->value);
    op.limit = args.Uint(4);
    op.flags = args.Uint(5);
    return Submit(env, args, handle);
}

// sweep(client, slot, rows) -> null | error
napi_value Sweep(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    OpHandle *handle = Prepare(env, args, HF_SWEEP);
    if (handle == nullptr) return ClosedResult(env);
    handle->op.n_keys = 0;
    handle->op.limit = args.Uint(2);
    return Submit(env, args, handle);
}

} // namespace

void DefineOps(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "get", Get);
    Define(env, exports, environment, "put", Put);
    Define(env, exports, environment, "del", Del);
    Define(env, exports, environment, "add", Add);
    Define(env, exports, environment, "list", List);
    Define(env, exports, environment, "sweep", Sweep);
}

} // namespace holdfast
