/* keep_connect PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS [HOST] - keepsock: connects, one after another */
#include "client.h"
#include "keep.h"
#include <string.h>

int main(int argc, char **argv)
{
    struct task task = task_of(argc, argv);
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;
    char endpoint[64], buf[SIZE];

    snprintf(endpoint, sizeof endpoint, "%s:%u", task.host, (unsigned)task.port);
    memset(buf, 'k', sizeof buf);
    /* Keepalive (idle, interval, count) and NODELAY are on by default. */
    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_connect_timeout(options, CONNECT_WITHIN_MS, &error), error);
    if (task.timeout_ms > 0)
        must(keepsock_options_set_read_timeout(options, task.timeout_ms, &error), error);
    while (task.connections-- > 0) {
        keepsock_client *client = NULL;

        must(keepsock_client_connect(endpoint, options, &client, &error), error);
        for (long i = 0; i < task.messages; i++) {
            size_t missing = SIZE, got;

            must(keepsock_client_write_all(client, buf, SIZE, &error), error);
            for (; missing > 0; missing -= got) {
                must(keepsock_client_read(client, buf, missing, &got, &error), error);
                if (got == 0)
                    return 1;
            }
        }
        keepsock_client_free(client);
    }
    keepsock_options_free(options);
    return 0;
}
