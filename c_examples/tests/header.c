/* The header must be enough by itself, in every language standard. */
#include <keepsock.h>

int main(void)
{
    return 0;
}
