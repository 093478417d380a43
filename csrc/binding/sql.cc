// The user's own statements and transactions on PostgreSQL.

#include "binding/convert.h"

namespace holdfast {

namespace {

struct QueryHandle : Handle {
    static constexpr Type kType = kQuery;
    QueryHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    void Free() override {
        if (query != nullptr) hf_pg_query_free(query);
        query = nullptr;
    }
    hf_pg_query *query = nullptr;
};

struct TransactionHandle : Handle {
    static constexpr Type kType = kTransaction;
    TransactionHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    void Free() override {
        if (tx != nullptr) hf_pg_tx_free(tx);
        tx = nullptr;
    }
    hf_pg_tx *tx = nullptr;
};

// A statement and its parameters: null, a string, or the bytes of a Uint8Array. One that is
// neither is null.
class Statement {
public:
    Statement(napi_env env, napi_value sql, napi_value params, uint32_t timeout_ms)
        : sql_(Bytes(env, sql)) {
        uint32_t count = 0;
        bool several = false;
        napi_is_array(env, params, &several);
        if (several && napi_get_array_length(env, params, &count) != napi_ok) count = 0;
        values_.reserve(count);
        params_.reserve(count);
        for (uint32_t i = 0; i < count; i++) {
            napi_value value = nullptr;
            napi_get_element(env, params, i, &value);
            Add(env, value);
        }
        statement_.sql = Slice(sql_);
        statement_.params = params_.data();
        statement_.n_params = params_.size();
        statement_.timeout_ms = timeout_ms;
    }
    Statement(const Statement &) = delete;
    Statement &operator=(const Statement &) = delete;
    const hf_pg_statement *get() const {
        return &statement_;
    }

private:
    // The texts stay where they are: there is room for all of them.
    void Add(napi_env env, napi_value value) {
        napi_valuetype type = napi_undefined;
        napi_typeof(env, value, &type);
        values_.push_back(Bytes(env, value));
        hf_pg_param param{};
        if (type == napi_string || type == napi_object) param.value = Slice(values_.back());
        param.binary = type == napi_object;
        params_.push_back(param);
    }

    std::string sql_;
    std::vector<std::string> values_;
    std::vector<hf_pg_param> params_;
    hf_pg_statement statement_{};
};

napi_value TextValue(napi_env env, hf_slice text) {
    napi_value value = nullptr;
    napi_create_string_utf8(env, text.data == nullptr ? "" : text.data, text.len, &value);
    return value;
}

napi_value OptionalText(napi_env env, hf_slice text) {
    napi_value value = nullptr;
    if (text.data != nullptr) return TextValue(env, text);
    napi_get_undefined(env, &value);
    return value;
}

// [severity, detail, hint, schema, table, column, dataType, constraint, where, routine, position];
// undefined if the server said nothing.
napi_value FailureValue(napi_env env, const hf_pg_failure *failure) {
    napi_value value = nullptr;
    if (failure == nullptr) {
        napi_get_undefined(env, &value);
        return value;
    }
    const hf_slice texts[] = {failure->severity,  failure->detail,     failure->hint,
                              failure->schema,    failure->table,      failure->column,
                              failure->data_type, failure->constraint, failure->where,
                              failure->routine};
    constexpr uint32_t kTexts = sizeof texts / sizeof texts[0];
    napi_create_array_with_length(env, kTexts + 1, &value);
    for (uint32_t i = 0; i < kTexts; i++)
        napi_set_element(env, value, i, OptionalText(env, texts[i]));
    napi_set_element(env, value, kTexts, Double(env, failure->position));
    return value;
}

// [error, failure | undefined]
void AttachFailure(Environment *environment, Record &record, const hf_error &error,
                   const hf_pg_failure *failure) {
    const napi_env env = environment->env();
    napi_value pair = nullptr;
    environment->OpenScope();
    record.flags |= kFailed;
    napi_create_array_with_length(env, 2, &pair);
    napi_set_element(env, pair, 0, ErrorValue(env, error));
    napi_set_element(env, pair, 1, FailureValue(env, failure));
    environment->Attach(record, pair);
}

// [[name, table's oid, column's number, type's oid, size, modifier]...]
napi_value FieldsValue(napi_env env, const hf_pg_rows &rows) {
    napi_value fields = nullptr;
    napi_create_array_with_length(env, rows.n_fields, &fields);
    for (uint32_t i = 0; i < rows.n_fields; i++) {
        const hf_pg_field &field = rows.fields[i];
        const double numbers[] = {static_cast<double>(field.table),
                                  static_cast<double>(field.column),
                                  static_cast<double>(field.type), static_cast<double>(field.size),
                                  static_cast<double>(field.modifier)};
        napi_value each = nullptr;
        napi_create_array_with_length(env, 6, &each);
        napi_set_element(env, each, 0, TextValue(env, field.name));
        for (uint32_t n = 0; n < 5; n++)
            napi_set_element(env, each, n + 1, Double(env, numbers[n]));
        napi_set_element(env, fields, i, each);
    }
    return fields;
}

// Row after row in one flat array. Each row has a scope of its own: a big result would otherwise
// keep a handle for each value until it is delivered.
napi_value ValuesValue(napi_env env, const hf_pg_rows &rows) {
    napi_value values = nullptr;
    napi_value null = nullptr;
    uint32_t at = 0;
    napi_get_null(env, &null);
    napi_create_array_with_length(env, rows.n_rows * rows.n_fields, &values);
    for (size_t row = 0; row < rows.n_rows; row++) {
        napi_handle_scope scope = nullptr;
        napi_open_handle_scope(env, &scope);
        for (size_t field = 0; field < rows.n_fields; field++) {
            const hf_slice text = hf_pg_rows_value(&rows, row, field);
            napi_value value = null;
            if (text.data != nullptr) value = TextValue(env, text);
            napi_set_element(env, values, at++, value);
        }
        napi_close_handle_scope(env, scope);
    }
    return values;
}

void OnRows(void *data, hf_pg_query *, const hf_pg_rows *rows, const hf_error *error,
            const hf_pg_failure *failure) {
    auto *handle = static_cast<QueryHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    const napi_env env = environment->env();
    Record &record = environment->Push(handle, kPgRows);
    if (error != nullptr) {
        AttachFailure(environment, record, *error, failure);
    } else {
        napi_value extra = nullptr;
        environment->OpenScope();
        record.first = static_cast<double>(rows->affected);
        record.second = static_cast<double>(rows->n_rows);
        napi_create_array_with_length(env, 3, &extra);
        napi_set_element(env, extra, 0, TextValue(env, rows->command));
        napi_set_element(env, extra, 1, FieldsValue(env, *rows));
        napi_set_element(env, extra, 2, ValuesValue(env, *rows));
        environment->Attach(record, extra);
    }
    environment->Retire(handle);
    environment->Settle();
}

void OnBegun(void *data, hf_pg_tx *, const hf_error *error) {
    auto *handle = static_cast<TransactionHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kPgBegun);
    if (error != nullptr) {
        AttachFailure(environment, record, *error, nullptr);
        environment->Retire(handle);
    }
    environment->Settle();
}

void OnEnded(void *data, hf_pg_tx *, const hf_error *error, const hf_pg_failure *failure) {
    auto *handle = static_cast<TransactionHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kPgEnded);
    if (error != nullptr) AttachFailure(environment, record, *error, failure);
    environment->Retire(handle);
    environment->Settle();
}

napi_value Started(napi_env env, Environment *environment, Handle *handle, hf_code code,
                   const hf_error &error) {
    if (code == HF_OK) {
        environment->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// pgQuery(client, slot, sql, params | undefined, timeout) -> null | error
napi_value Query(napi_env env, napi_callback_info info) {
    const Arguments<5> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    const Statement statement(env, args[2], args[3], args.Uint(4));
    auto *handle = new QueryHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code =
        hf_pg_query_run(client->client, statement.get(), OnRows, handle, &handle->query, &error);
    return Started(env, args.environment(), handle, code, error);
}

// pgCancelQuery(slot)
napi_value CancelQuery(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const QueryHandle *handle = args.Handle<QueryHandle>(0);
    if (handle != nullptr) hf_pg_query_cancel(handle->query);
    return nullptr;
}

// pgBegin(client, slot, isolation, readOnly, timeout) -> null | error
napi_value Begin(napi_env env, napi_callback_info info) {
    const Arguments<5> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    hf_pg_tx_options options{};
    const uint32_t isolation = args.Uint(2);
    if (isolation <= HF_PG_SERIALIZABLE)
        options.isolation = static_cast<hf_pg_isolation>(isolation);
    options.read_only = args.Uint(3) != 0;
    options.timeout_ms = args.Duration(4);
    auto *handle = new TransactionHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code =
        hf_pg_tx_begin(client->client, &options, OnBegun, handle, &handle->tx, &error);
    return Started(env, args.environment(), handle, code, error);
}

// pgTxQuery(transaction, slot, sql, params | undefined, timeout) -> null | error
napi_value TxQuery(napi_env env, napi_callback_info info) {
    const Arguments<5> args(env, info);
    const TransactionHandle *transaction = args.Handle<TransactionHandle>(0);
    if (transaction == nullptr) return ClosedResult(env);
    const Statement statement(env, args[2], args[3], args.Uint(4));
    auto *handle = new QueryHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code =
        hf_pg_tx_run(transaction->tx, statement.get(), OnRows, handle, &handle->query, &error);
    return Started(env, args.environment(), handle, code, error);
}

// pgEnd(transaction, commit) -> null: a result will come; or an error, and nothing will. Of these
// HF_ECLOSED says that the slot is over.
napi_value End(napi_env env, napi_callback_info info) {
    const Arguments<2> args(env, info);
    TransactionHandle *handle = args.Handle<TransactionHandle>(0);
    if (handle == nullptr) return ClosedResult(env);
    const hf_code code = hf_pg_tx_end(handle->tx, args.Uint(1) != 0, OnEnded, handle);
    if (code == HF_ECLOSED) args.environment()->Retire(handle);
    return StartResult(env, code, LocalError(code));
}

// pgCancelTx(transaction)
napi_value CancelTx(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const TransactionHandle *handle = args.Handle<TransactionHandle>(0);
    if (handle != nullptr) hf_pg_tx_cancel(handle->tx);
    return nullptr;
}

} // namespace

void DefineSql(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "pgQuery", Query);
    Define(env, exports, environment, "pgCancelQuery", CancelQuery);
    Define(env, exports, environment, "pgBegin", Begin);
    Define(env, exports, environment, "pgTxQuery", TxQuery);
    Define(env, exports, environment, "pgEnd", End);
    Define(env, exports, environment, "pgCancelTx", CancelTx);
}

} // namespace holdfast
