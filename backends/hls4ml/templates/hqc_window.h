#ifndef HQC_WINDOW_H_
#define HQC_WINDOW_H_

#include "nnet_common.h"

namespace nnet {

// Where the taps of windows stand in the image. Where a window hangs over an edge or reads between
// strides, rows and columns are counted as int: both may be negative.
template <class CONFIG_T> struct hqc_tap {
    static int row(unsigned oh, unsigned fh) {
        return int(oh * CONFIG_T::stride_height) - int(CONFIG_T::pad_top) + int(fh * CONFIG_T::dilation_height);
    }

    static int column(unsigned ow, unsigned fw) {
        return int(ow * CONFIG_T::stride_width) - int(CONFIG_T::pad_left) + int(fw * CONFIG_T::dilation_width);
    }

    static bool inside(int row, int column) {
        return row >= 0 && row < int(CONFIG_T::in_height) && column >= 0 && column < int(CONFIG_T::in_width);
    }

    // The first element of a pixel; outside of the image that of another one, which is not read.
    static unsigned element(int row, int column) {
        return inside(row, column) ? (row * CONFIG_T::in_width + column) * CONFIG_T::n_chan : 0;
    }
};

} // namespace nnet

#endif
