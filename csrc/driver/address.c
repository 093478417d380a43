#include "driver/address.h"

#include "util/url.h"

#include <stdio.h>
#include <string.h>

void hf__address_show(const hf__address *address, char *text, size_t size) {
    if (address->port == 0)
        snprintf(text, size, "%s", address->host);
    else if (strchr(address->host, ':') != NULL)
        snprintf(text, size, "[%s]:%u", address->host, (unsigned)address->port);
    else
        snprintf(text, size, "%s:%u", address->host, (unsigned)address->port);
}

bool hf__address_read(hf_slice text, uint16_t port, hf__address *address) {
    hf_slice host = text;
    hf_slice number = {NULL, 0};
    uint64_t value = port;
    const char *end;

    if (text.len > 0 && text.data[0] == '[') {
        end = memchr(text.data, ']', text.len);
        if (end == NULL) return false;
        host = (hf_slice){text.data + 1, (size_t)(end - text.data) - 1};
        end++;
        if (end < text.data + text.len && *end != ':') return false;
    } else {
        end = memchr(text.data, ':', text.len);
        if (end == NULL) end = text.data + text.len;
        host.len = (size_t)(end - text.data);
    }
    if (end < text.data + text.len)
        number = (hf_slice){end + 1, (size_t)(text.data + text.len - end) - 1};
    if (number.data != NULL && !hf__parse_uint(number, 1, 65535, &value)) return false;
    if (host.len == 0 || host.len >= sizeof address->host) return false;
    memcpy(address->host, host.data, host.len);
    address->host[host.len] = '\0';
    address->port = (uint16_t)value;
    return true;
}
