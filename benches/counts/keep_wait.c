/* keep_wait - keepsock: a receive that waits for its datagram, with a read timeout or with a cancel token */
#include "keep_must.h"
#include "wait.h"

static keepsock_datagram *asking;

static void open_socket(const struct sockaddr_in *to, int token)
{
    keepsock_options *options = NULL;
    keepsock_cancel_token *cancel = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];

    snprintf(where, sizeof where, "127.0.0.1:%u", ntohs(to->sin_port));
    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_read_timeout(options, TIMEOUT_S * 1000, &error), error);
    if (token) {
        must(keepsock_cancel_token_new(&cancel, &error), error);
        must(keepsock_options_set_cancel(options, cancel, &error), error);
    }
    must(keepsock_datagram_connect(where, options, &asking, &error), error);
    keepsock_options_free(options);
}

static void ask(const char *question, size_t len)
{
    keepsock_error *error = NULL;

    must(keepsock_datagram_send(asking, question, len, &error), error);
}

static size_t answer(char *buf, size_t cap)
{
    keepsock_error *error = NULL;
    keepsock_datagram_info info;

    must(keepsock_datagram_recv(asking, buf, cap, &info, sizeof info, &error), error);
    return info.len;
}
